"""Topology plans of an agent's modules, from their settings: a budget each, or one for them all."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from mst_jax import topology
from mst_jax.agents.parts.modules import (
    ModuleConfig,
    modules_of,
    regime_named,
    require,
    structure_named,
)
from mst_jax.names import kind_of
from mst_jax.topology.mask_tree import named_leaves
from mst_jax.user_code import one_line

Ties = Mapping[str, int]  # pattern of leaves -> axis of parts of one weight
SHARED = ("regime", "sparsity", "allocation", "structure")  # settings that a joint budget needs


class Rule(NamedTuple):
    """The one rule of a module's plan."""

    pattern: str
    regime: topology.Regime


def plan_modules(
    config: Any,
    shapes: Mapping[str, Any],
    updates: Mapping[str, int],
    tied: Mapping[str, Ties] | None = None,
) -> dict[str, topology.Plan]:
    """Resolves the regimes of an agent's modules into topology plans.

    Where the configuration says `joint`, the modules' kernels share one budget, as if they were one
    network's: each plan then has the counts that its leaves get of it.

    Args:
        config: has a `ModuleConfig` for each module, and may have the flag `joint`.
        shapes: module -> its parameters, or their shapes.
        updates: module -> its own optimizer steps in the run.
        tied: module -> see `topology.plan`; of those with noisy layers.

    Returns:
        Module -> plan.

    Raises:
        ValueError: when the run is too short for a single rewiring, a regime is a user's own and
            cannot be made, or fails when it draws or rewires, or modules cannot share a budget.
    """
    settings, ties = modules_of(config), tied or {}
    rules = {name: _rule(name, settings[name], shapes[name], updates[name]) for name in shapes}
    if getattr(config, "joint", False):
        rules = _jointly(settings, rules, shapes, ties)
    return {
        name: _plan(name, settings[name], rule, shapes[name], ties.get(name))
        for name, rule in rules.items()
    }


def _rule(name: str, config: ModuleConfig, params: Any, total_updates: int) -> Rule:
    """Which leaves of a module may be sparse, and under which regime."""
    regime = _regime(name, config, total_updates)
    pattern = ".*" if regime.leaves == "all" else ".*kernel"
    if config.where != ".*":
        pattern = f"(?=(?:{config.where})$){pattern}"
        paths = named_leaves(params)
        require(
            any(re.fullmatch(pattern, path) for path in paths),
            f"{name}.where={config.where!r} matches none of its {len(paths)} parameters, such as "
            f"{next(iter(paths))}",
        )
    if config.allocation != "own":
        base = topology.allocation.named(config.allocation)
        regime = replace(regime, allocation=regime.allocation.with_base(base))
    return Rule(pattern, _structured(name, config, regime))


def _plan(
    name: str, config: ModuleConfig, rule: Rule, params: Any, tied: Ties | None
) -> topology.Plan:
    """The plan of one module."""
    rules = {rule.pattern: rule.regime}
    if config.regime in topology.REGIMES:
        try:
            return topology.plan(params, rules, tied)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    try:
        plan = topology.plan(params, rules, tied)
        topology.trace_rewires(plan)
    except Exception as error:  # whatever a user's scores and schedules raise
        why = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{name}.regime={config.regime} fails: {why}") from error
    return plan


def _jointly(
    settings: Mapping[str, ModuleConfig],
    rules: Mapping[str, Rule],
    shapes: Mapping[str, Any],
    ties: Mapping[str, Ties],
) -> dict[str, Rule]:
    """The rules with what each kernel gets of one budget for all of them."""
    _require_alike(settings, rules)
    first = next(iter(rules.values())).regime
    if first.sparsity is None:
        return dict(rules)
    still = replace(first, timing=None)  # its counts never change
    pattern = "|".join(f"{re.escape(name)}/(?:{rule.pattern})" for name, rule in rules.items())
    axes = {
        f"{re.escape(name)}/(?:{leaves})": axis
        for name, own in ties.items()
        for leaves, axis in own.items()
    }
    try:
        whole = topology.plan(shapes, {pattern: still}, axes)
    except ValueError as error:
        raise ValueError(f"joint: {error}") from error
    return {
        name: Rule(rule.pattern, _with_shares(rule.regime, whole, name))
        for name, rule in rules.items()
    }


def _require_alike(settings: Mapping[str, ModuleConfig], rules: Mapping[str, Rule]) -> None:
    """Raises ValueError in one line unless the modules can share a budget."""
    for key in SHARED:
        own = {name: getattr(settings[name], key) for name in rules}
        told = ", ".join(f"{name}.{key}={value}" for name, value in own.items())
        require(
            len(set(own.values())) == 1,
            f"joint=True shares one budget among all modules, which must agree in {key}: {told}; "
            "set them alike, or joint=False for a budget each",
        )
    for name, (_, regime) in rules.items():
        require(
            _counts_are_fixed(regime),
            f"joint=True needs a regime whose kernels have as many weights throughout, such as "
            f"static, set or rigl, and not {name}.regime={settings[name].regime}",
        )


def _counts_are_fixed(regime: topology.Regime) -> bool:
    """Whether each leaf has from the beginning what its allocation gives it."""
    if regime.sparsity is None:
        return True
    steps = regime.timing.steps if regime.timing else ()
    levels = {regime.sparsity(step) for step in (0, *steps)}
    moved = regime.sharing is not None or regime.growth is not None or len(levels) > 1
    return not (moved or regime.dense_first or regime.dense_last)


def _with_shares(regime: topology.Regime, whole: topology.Plan, name: str) -> topology.Regime:
    """A module's regime with the counts that a plan of all modules gives its leaves."""
    shares = {}
    for path, (group, column, entry) in whole.entries().items():
        if path.startswith(f"{name}/"):
            active = int(whole.groups[group].table.target[0, column])
            share = Fraction(active, math.prod(entry.shape))
            shares[re.escape(path.removeprefix(f"{name}/"))] = 1 - share
    return replace(
        regime,
        sparsity=topology.schedules.constant(1.0),  # of the shares
        allocation=topology.explicit(shares),
    )


def _regime(name: str, config: ModuleConfig, total_updates: int) -> topology.Regime:
    """The regime that a module's settings name."""
    end = max(1, int(config.end_fraction * total_updates))
    make = regime_named(f"{name}.regime", config.regime)
    try:
        regime = make(
            sparsity=config.sparsity,
            interval=config.interval,
            start=max(1, int(config.start_fraction * total_updates)),
            end=end,
            drop_fraction=config.drop_fraction,
        )
    except Exception as error:  # whatever a user's function raises
        raise ValueError(
            f"{name}.regime={config.regime}: {one_line(error)} ({name}.end_fraction="
            f"{config.end_fraction} of {total_updates} updates ends it at {end}; a longer run or a "
            f"lower {name}.interval gives it more time)"
        ) from error
    if not isinstance(regime, topology.Regime):
        raise ValueError(
            f"{name}.regime={config.regime} made {kind_of(regime)}, not a topology.Regime"
        )
    return regime


def _structured(name: str, config: ModuleConfig, regime: topology.Regime) -> topology.Regime:
    """The regime with the structure that the settings name, if they name one."""
    named = structure_named(f"{name}.structure", config.structure)
    if named.structure == topology.unstructured():
        return regime
    changes: dict[str, Any] = {"structure": named.structure, "storage": config.storage}
    if named.sparsity is not None and not regime.allocation.by_leaf:
        changes["allocation"] = topology.uniform()  # N is the same in every leaf
    try:
        return replace(regime, **changes)
    except ValueError as error:
        raise ValueError(
            f"{name}.structure={config.structure} with {name}.regime={config.regime}: {error}"
        ) from error
