"""Settings from what a user gives by name, such as `seeds=4` and `**{"critic.sparsity": 0.8}`."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from mst_jax.agents import idle_settings
from mst_jax.names import dotted, kind_of, nearest
from mst_jax.presets import preset_overrides
from mst_jax.recipes import label, make_config, override
from mst_jax.runs import Settings, rebuild_settings, settings_values
from mst_jax.runs.settings import ABOUT

ELSEWHERE = {  # flags of the launcher that are no argument here
    "vary": "mst_jax.train_many trains runs that differ",
    "logdir": "folder= is the run's own folder",
    "resume": "mst_jax.load(FOLDER).resume() goes on",
}
# What makes a configuration, with agent and recipe.
CONFIG = ("config", "preset", "size", "architecture")


def settings_from(given: Mapping[str, Any]) -> Settings:
    """Settings with defaults for all that is not given.

    Args:
        given: fields of `Settings`; the `preset` of the task, `size` and `architecture` of the
            networks, or a whole `config` instead of the recipe's; and settings of the agent's
            configuration, modules' with a dot.

    Returns:
        Settings that are possible. A run too short for the published warm-up gets a shorter one,
        with a warning, unless it says which.

    Raises:
        ValueError: an unknown name, with the nearest ones, or an impossible value.
        TypeError: a value of another type.
    """
    given = {name: _plain(value) for name, value in given.items()}
    for name in ("agent", "recipe", "preset", "size", "architecture"):
        if not isinstance(given.get(name, ""), str):
            raise TypeError(f"{name} is {given[name]!r}, not a str")
    fields = {name: value for name, value in given.items() if name in ABOUT}
    agent, recipe = (fields.get(name, getattr(Settings, name)) for name in ("agent", "recipe"))
    preset, size, architecture = (given.get(name, "") for name in CONFIG[1:])
    config = given.get("config")
    if config is None:
        base = preset_overrides(agent, preset, fields.get("task", Settings.task))
        config = make_config(agent, recipe, size, architecture, base)
    elif not dataclasses.is_dataclass(config):
        raise TypeError(f"config is {kind_of(config)}, not an agent's configuration")
    elif preset or size or architecture:
        beside = [name for name in CONFIG[1:] if given.get(name)]
        raise ValueError(f"config= is a whole configuration: leave out {', '.join(beside)}")
    own = {name: value for name, value in given.items() if name not in (*ABOUT, *CONFIG)}
    known = dotted(config)
    for name in own:
        if name not in known:
            near = ELSEWHERE.get(name) or nearest(name, [*ABOUT, *CONFIG, *known])
            raise ValueError(f"there is no setting {name!r}: {near}")
    config = override(config, own)
    steps = fields.get("steps", Settings.steps)
    if "learning_starts" not in own and given.get("config") is None:
        config = _begun_in_time(config, steps)
    fields |= {"recipe": label(recipe, size, architecture, preset), "config": config}
    settings = Settings(**fields)
    settings = rebuild_settings(settings_values(settings))  # refuses other types
    settings.validate()
    return settings


def _begun_in_time(config: Any, steps: int) -> Any:
    """The configuration, with a shorter warm-up for a run that would else never learn."""
    published = getattr(config, "learning_starts", 0)
    if not isinstance(steps, int) or steps > published:
        return config
    starts = max(steps // 10, 1)
    warnings.warn(
        f"{steps:,} steps are no more than the published warm-up of {published:,}: "
        f"learning_starts={starts} instead; give it to choose another",
        stacklevel=4,  # who called `train`
    )
    return override(config, {"learning_starts": starts})


def warn_of_idle(settings: Settings, given: Mapping[str, Any], stacklevel: int) -> None:
    """Warns of what was given and is not read by the regime of its module."""
    for idle in idle_settings(settings.config, given):
        warnings.warn(idle, stacklevel=stacklevel + 1)


def own_label(settings: Settings, given: Mapping[str, Any]) -> str:
    """What tells a run from others of one call: its recipe, and what was given to it alone."""
    told = ("agent", "task", "recipe", "seed", "seeds", *CONFIG)  # the folder's name has these
    parts = [f"{name}={_text(given[name])}" for name in given if name not in told]
    return "-".join([settings.recipe, *parts])


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _plain(value: Any) -> Any:
    """A number of NumPy as Python's, which config.json can hold."""
    return value.item() if isinstance(value, np.generic) else value
