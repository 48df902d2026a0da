"""Recipes as data: what a name such as `mst` changes in modules of each role, for every agent."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mst_jax.agents import (
    AGENTS,
    ROLES,
    SIMBA_SIZES,
    Role,
    default_config,
    modules_of,
    roles_of,
    scaled,
    size_factors,
)
from mst_jax.agents.parts.modules import structure_named
from mst_jax.names import dotted, kind_of, nearest
from mst_jax.topology import RIGL_PRESETS
from mst_jax.user_code import is_dotted, one_line, resolve

Overrides = dict[str, Any]
ByRole = Mapping[Role, Overrides]  # settings of every module of a role

SPARSITY = 0.6  # of every sparse module in the study of MST (docs/specs/mst-and-mrq.md §3.1)
NE_SPARSITY = 0.8  # that Neuroplastic Expansion begins with, as published
# What the recipes of MR.Q and MR.SAC have in common (docs/specs/mst-and-mrq.md §4.1): ELU encoder
# and critic, ReLU actor, all with layer norm, as published; MST adds pre-layer residuals.
_RESIDUAL: ByRole = {role: {"residual": "pre"} for role in ROLES}
_LAID_ON: dict[str, ByRole] = {"mrq": _RESIDUAL, "mrsac": _RESIDUAL}


def _sparse(regime: str, *roles: Role, sparsity: float = SPARSITY) -> ByRole:
    return {role: {"regime": regime, "sparsity": sparsity} for role in roles}


# Topology-Aware Revival completes its masks right after the draw (docs/specs/tar.md).
_REVIVED: ByRole = {
    role: {"regime": "topology_aware_revival", "sparsity": SPARSITY, "start_fraction": 0.01}
    for role in ROLES
}
# MST and its rivals; from `all_static` on, every module is treated alike. The last five are methods
# as their authors have them (docs/topology.md, "What the papers do").
FOR_ALL: dict[str, ByRole] = {
    "dense": {},
    "mst": {**_sparse("rigl", "value"), **_sparse("static", "policy")},
    "swap": {**_sparse("static", "value"), **_sparse("rigl", "policy")},
    "all_static": _sparse("static", *ROLES),
    "all_rigl": _sparse("rigl", *ROLES),
    "gmp": _sparse("gradual_magnitude_pruning", *ROLES),
    "growth": _sparse("gradual_growth", *ROLES),
    "tar": _REVIVED,
    "set_by_sign": _sparse("set_by_sign", *ROLES),
    "snfs_redistributed_adam": _sparse("snfs_redistributed_adam", *ROLES),
    "gmp_global": _sparse("gradual_magnitude_pruning_global", *ROLES),
    "granet_global": _sparse("granet_global", *ROLES),
    "ne_dormancy": _sparse("neuroplastic_expansion_dormancy", *ROLES, sparsity=NE_SPARSITY),
}
# On SimBa networks, as their authors ran it: all tensors count, masks are Bernoulli draws, 0.8 in
# both networks.
ON_SIMBA: dict[str, ByRole] = {
    "network_sparsity_parity": _sparse("network_sparsity", *ROLES, sparsity=0.8),
}
# A stream's gradient is that of one sample: growth is scored by an average of many, or RigL would
# grow whole rows and columns of the strongest units of the moment.
STREAMING: dict[str, ByRole] = {
    "network_sparsity_streaming": _sparse("static", "value", "policy", sparsity=0.8),
}
# RNM-TD3 (Vrce et al. 2026, arXiv 2602.14578): N:M in all networks from scratch. How the masks move
# is our reading (docs/topology.md, "Structures").
N_OF_M: dict[str, ByRole] = {
    f"rnm_{n}_{m}": {
        role: {"regime": "rigl", "structure": f"{n}:{m}", "sparsity": 1 - n / m} for role in ROLES
    }
    for n, m in ((2, 4), (1, 4))
}
# Static sparsity of the critic alone, as on pixels (docs/specs/drqv2.md §2).
STATIC_CRITIC: dict[str, ByRole] = {"static_critic": _sparse("static", "value", sparsity=0.8)}
# RLx2 (Tan et al. 2023, arXiv 2205.15043): RigL in both networks to the end, at its authors' pace.
_RLX2 = RIGL_PRESETS["rlx2"]
RLX2: dict[str, ByRole] = {
    "rlx2": {
        role: {
            "regime": "rigl",
            "sparsity": SPARSITY,
            "interval": _RLX2.interval,
            "drop_fraction": _RLX2.drop_fraction,
            "end_fraction": _RLX2.end,
        }
        for role in ROLES
    }
}
# Recipes of some agents.
_OF_SOME: dict[str, dict[str, ByRole]] = {
    "drqv2": STATIC_CRITIC,
    "sac": RLX2,
    "td3": N_OF_M | RLX2,
}
# What recipes change in the agent itself (docs/specs/rlx2.md).
_OF_AGENT: dict[str, Overrides] = {
    "rlx2": {"n_step": 3, "n_step_delay": 300_000, "review_every": 10_000},
}
_IN_PLACE_OF = {"stream_ac": {"rigl": "rigl_averaged"}}
AS_PUBLISHED = {"mrq": "mrq_stock"}  # without what the recipes above are laid on


def recipes_of(agent: str) -> dict[str, Overrides]:
    """{recipe: settings it changes, by dotted name} of an agent; ValueError for an unknown one."""
    config = default_config(agent)
    own = {**FOR_ALL, **(ON_SIMBA if _on_simba(config) else {})}
    own |= (STREAMING if agent in _IN_PLACE_OF else {}) | _OF_SOME.get(agent, {})
    base, other = for_modules(config, _LAID_ON.get(agent, {})), _IN_PLACE_OF.get(agent, {})
    found = {
        name: {k: other.get(v, v) for k, v in {**base, **for_modules(config, changes)}.items()}
        | _OF_AGENT.get(name, {})
        for name, changes in own.items()
    }
    return {AS_PUBLISHED[agent]: {}, **found} if agent in AS_PUBLISHED else found


def for_modules(config: Any, changes: ByRole) -> Overrides:
    """Settings of roles as those of the modules that a configuration has, by dotted name."""
    return {
        f"{name}.{key}": value
        for name, role in roles_of(config).items()
        for key, value in changes.get(role, {}).items()
    }


def _on_simba(config: Any) -> bool:
    return all(module.residual == "simba" for module in modules_of(config).values())


RECIPES: dict[str, dict[str, Overrides]] = {agent: recipes_of(agent) for agent in AGENTS}

# The six architectures of docs/specs/mst-and-mrq.md §2.2, by what they are made of.
ARCHITECTURES: dict[str, Overrides] = {
    f"{activation}{suffix}": {"activation": activation, "norm": norm, "residual": residual}
    for suffix, norm, residual in (
        ("", False, "none"),
        ("_ln", True, "none"),
        ("_ln_res", True, "pre"),
    )
    for activation in ("relu", "elu")
}


def make_config(
    agent: str,
    recipe: str,
    size: str = "",
    architecture: str = "",
    base: Overrides | None = None,
) -> Any:
    """An agent's published configuration, resized, under a recipe, in another architecture.

    Args:
        agent: a name of `mst_jax.agents.AGENTS`.
        recipe: one of `recipes_of(agent)`, or the dotted name of a function of your own,
            `(agent, config) -> config`.
        size: see `mst_jax.agents.size_factors`; empty for the published size.
        architecture: one of `ARCHITECTURES`, for every module; empty for the recipe's own.
        base: settings to change in the published configuration before anything else.

    Raises:
        ValueError: for names that do not exist.
    """
    config = override(default_config(agent), base or {})
    if size:
        if size in SIMBA_SIZES and not _on_simba(config):
            raise ValueError(f"size {size!r} names a SimBa network; give {agent} WIDTHxDEPTH")
        config = scaled(config, *size_factors(size))
    config = _under(config, agent, recipe)
    return (
        override(config, _architecture_overrides(config, architecture)) if architecture else config
    )


def label(recipe: str, size: str = "", architecture: str = "", preset: str = "") -> str:
    """What a run is called after: the recipe, and what else was chosen by name."""
    return "-".join(part for part in (recipe, preset, architecture, size) if part)


def _architecture_overrides(config: Any, architecture: str) -> Overrides:
    if architecture not in ARCHITECTURES:
        near = nearest(architecture, ARCHITECTURES)
        raise ValueError(f"architecture {architecture!r} is unknown: {near}")
    changes: Overrides = {}
    for name, module in modules_of(config).items():
        changes |= {f"{name}.{key}": value for key, value in ARCHITECTURES[architecture].items()}
        if module.residual == "simba":  # as many linear layers as the blocks had
            changes[f"{name}.depth"] = 1 + 2 * module.depth
    return changes


def _under(config: Any, agent: str, recipe: str) -> Any:
    """A configuration under a recipe of ours, or of a user's own."""
    if recipe in recipes_of(agent) or not is_dotted(recipe):
        return override(config, recipe_overrides(agent, recipe))
    try:
        made = resolve("recipe", recipe)(agent, config)
    except ValueError:
        raise
    except Exception as error:  # whatever a user's function raises
        why = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"recipe {recipe!r} fails: {why}") from error
    if type(made) is not type(config):
        raise ValueError(
            f"recipe {recipe!r} returned {kind_of(made)}, not the {type(config).__name__} "
            "that it was given, or a changed copy of it (dataclasses.replace, recipes.override)"
        )
    return made


def recipe_overrides(agent: str, recipe: str) -> Overrides:
    """The settings a recipe changes; raises ValueError for names that do not exist."""
    recipes = recipes_of(agent)
    if recipe not in recipes:
        raise ValueError(f"recipe {recipe!r} is unknown for {agent}: {nearest(recipe, recipes)}")
    return recipes[recipe]


def override(config: Any, overrides: Overrides) -> Any:
    """A copy of a configuration dataclass with dotted settings replaced.

    A structure that is a sparsity too (2:4) brings it along, unless that is replaced as well.

    Raises:
        ValueError: when a setting does not exist, or a structure of that name.
    """
    overrides = {**overrides, **_implied(overrides)}
    for path, value in overrides.items():
        known = dotted(config)
        if path not in known:
            raise ValueError(f"there is no setting {path!r}: {nearest(path, known)}")
        config = _replace(config, path.split("."), value)
    return config


def _implied(overrides: Overrides) -> Overrides:
    """The sparsities that structures among the overrides stand for, where none are given."""
    found: Overrides = {}
    for path, value in overrides.items():
        module, _, setting = path.rpartition(".")
        if not module or setting != "structure" or not isinstance(value, str):
            continue
        own, sparsity = structure_named(path, value).sparsity, f"{module}.sparsity"
        if own is not None and sparsity not in overrides:
            found[sparsity] = own
    return found


def _replace(config: Any, parts: list[str], value: Any) -> Any:
    name, *rest = parts
    new = _replace(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(config, **{name: new})
