"""Recipes as data: what a name such as `mst` changes in an agent's published configuration."""

import dataclasses
from typing import Any

from mst_jax.agents import SIMBA_SIZES, ModuleConfig, default_config, scaled, size_factors
from mst_jax.names import dotted, nearest

Overrides = dict[str, Any]

SPARSITY = 0.6  # of every sparse module in the study of MST (docs/specs/mst-and-mrq.md §3.1)
NE_SPARSITY = 0.8  # that Neuroplastic Expansion begins with, as published
MR_MODULES = ("encoder", "critic", "actor")
SIMBA_MODULES = ("critic", "actor")  # SAC and DDPG have no encoder

# One architecture for `dense` and `mst` (docs/specs/mst-and-mrq.md §4.1): ELU encoder and critic,
# ReLU actor, all with layer norm, as published; MST adds pre-layer residuals.
_RESIDUAL: Overrides = {f"{module}.residual": "pre" for module in MR_MODULES}


def _sparse(regime: str, *modules: str, sparsity: float = SPARSITY) -> Overrides:
    return {
        f"{module}.{name}": value
        for module in modules
        for name, value in (("regime", regime), ("sparsity", sparsity))
    }


def _recipes(modules: tuple[str, ...], architecture: Overrides) -> dict[str, Overrides]:
    """MST and its rivals on one architecture; from `all_static` on, every module is treated alike.

    The last five are methods as their authors have them (docs/topology.md, "What the papers do").
    """
    regimes = {
        "dense": {},
        "mst": {**_sparse("rigl", "critic"), **_sparse("static", "actor")},
        "swap": {**_sparse("static", "critic"), **_sparse("rigl", "actor")},
        "all_static": _sparse("static", *modules),
        "all_rigl": _sparse("rigl", *modules),
        "gmp": _sparse("gradual_magnitude_pruning", *modules),
        "growth": _sparse("gradual_growth", *modules),
        "set_by_sign": _sparse("set_by_sign", *modules),
        "snfs_redistributed_adam": _sparse("snfs_redistributed_adam", *modules),
        "gmp_global": _sparse("gradual_magnitude_pruning_global", *modules),
        "granet_global": _sparse("granet_global", *modules),
        "ne_dormancy": _sparse("neuroplastic_expansion_dormancy", *modules, sparsity=NE_SPARSITY),
    }
    return {name: {**architecture, **changes} for name, changes in regimes.items()}


_SIMBA = {
    **_recipes(SIMBA_MODULES, {}),
    # As the authors ran it: all tensors count, masks are Bernoulli draws, 0.8 in both networks.
    "network_sparsity_parity": _sparse("network_sparsity", *SIMBA_MODULES, sparsity=0.8),
}

RECIPES: dict[str, dict[str, Overrides]] = {
    "ddpg": _SIMBA,
    "mrq": {"mrq_stock": {}, **_recipes(MR_MODULES, _RESIDUAL)},
    "mrsac": _recipes(MR_MODULES, _RESIDUAL),
    "sac": _SIMBA,
}

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
        recipe: one of `RECIPES[agent]`.
        size: see `mst_jax.agents.size_factors`; empty for the published size.
        architecture: one of `ARCHITECTURES`, for every module; empty for the recipe's own.
        base: settings to change in the published configuration before anything else.

    Raises:
        ValueError: for names that do not exist.
    """
    config = override(default_config(agent), base or {})
    if size:
        if size in SIMBA_SIZES and RECIPES[agent] is not _SIMBA:
            raise ValueError(f"size {size!r} names a SimBa network; give {agent} WIDTHxDEPTH")
        config = scaled(config, *size_factors(size))
    config = override(config, recipe_overrides(agent, recipe))
    return (
        override(config, _architecture_overrides(config, architecture)) if architecture else config
    )


def label(recipe: str, size: str = "", architecture: str = "") -> str:
    """What a run is called after: the recipe, and what else was chosen by name."""
    return "-".join(part for part in (recipe, architecture, size) if part)


def _architecture_overrides(config: Any, architecture: str) -> Overrides:
    if architecture not in ARCHITECTURES:
        near = nearest(architecture, ARCHITECTURES)
        raise ValueError(f"architecture {architecture!r} is unknown: {near}")
    changes: Overrides = {}
    for name, module in vars(config).items():
        if not isinstance(module, ModuleConfig):
            continue
        changes |= {f"{name}.{key}": value for key, value in ARCHITECTURES[architecture].items()}
        if module.residual == "simba":  # as many linear layers as the blocks had
            changes[f"{name}.depth"] = 1 + 2 * module.depth
    return changes


def recipe_overrides(agent: str, recipe: str) -> Overrides:
    """The settings a recipe changes; raises ValueError for names that do not exist."""
    recipes = RECIPES.get(agent)
    if recipes is None:
        raise ValueError(f"agent {agent!r} is unknown: {nearest(agent, RECIPES)}")
    if recipe not in recipes:
        raise ValueError(f"recipe {recipe!r} is unknown for {agent}: {nearest(recipe, recipes)}")
    return recipes[recipe]


def override(config: Any, overrides: Overrides) -> Any:
    """A copy of a configuration dataclass with dotted settings replaced.

    Raises:
        ValueError: when a setting does not exist.
    """
    for path, value in overrides.items():
        known = dotted(config)
        if path not in known:
            raise ValueError(f"there is no setting {path!r}: {nearest(path, known)}")
        config = _replace(config, path.split("."), value)
    return config


def _replace(config: Any, parts: list[str], value: Any) -> Any:
    name, *rest = parts
    new = _replace(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(config, **{name: new})
