"""Recipes as data: what a name such as `mst` changes in an agent's published configuration."""

import dataclasses
from typing import Any

Overrides = dict[str, Any]

# One architecture for `dense` and `mst` (specs/mst-and-mrq.md §4.1): ELU encoder and critic, ReLU
# actor, all with layer norm, as published; MST adds pre-layer residuals.
_RESIDUAL: Overrides = {f"{m}.residual": "pre" for m in ("encoder", "critic", "actor")}


def _sparse(module: str, regime: str, sparsity: float = 0.6) -> Overrides:
    return {f"{module}.regime": regime, f"{module}.sparsity": sparsity}


RECIPES: dict[str, dict[str, Overrides]] = {
    "mrq": {
        "mrq_stock": {},
        "dense": _RESIDUAL,
        "mst": {**_RESIDUAL, **_sparse("critic", "rigl"), **_sparse("actor", "static")},
        "all_static": {
            **_RESIDUAL,
            **_sparse("encoder", "static"),
            **_sparse("critic", "static"),
            **_sparse("actor", "static"),
        },
        "all_rigl": {
            **_RESIDUAL,
            **_sparse("encoder", "rigl"),
            **_sparse("critic", "rigl"),
            **_sparse("actor", "rigl"),
        },
    },
}


def recipe_overrides(agent: str, recipe: str) -> Overrides:
    """The settings a recipe changes; raises ValueError for names that do not exist."""
    recipes = RECIPES.get(agent)
    if recipes is None:
        raise ValueError(f"agent {agent!r} is unknown; choose from {', '.join(sorted(RECIPES))}")
    if recipe not in recipes:
        raise ValueError(
            f"recipe {recipe!r} is unknown for {agent}; choose from {', '.join(sorted(recipes))}"
        )
    return recipes[recipe]


def override(config: Any, overrides: Overrides) -> Any:
    """A copy of a configuration dataclass with dotted settings replaced.

    Raises:
        ValueError: when a setting does not exist.
    """
    for path, value in overrides.items():
        config = _replace(config, path.split("."), path, value)
    return config


def settings_of(config: Any, prefix: str = "") -> Overrides:
    """All settings of a configuration as dotted names."""
    flat: Overrides = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        flat |= settings_of(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return flat


def _replace(config: Any, parts: list[str], path: str, value: Any) -> Any:
    name, *rest = parts
    if name not in {field.name for field in dataclasses.fields(config)}:
        raise ValueError(f"there is no setting {path!r}")
    new = _replace(getattr(config, name), rest, path, value) if rest else value
    return dataclasses.replace(config, **{name: new})
