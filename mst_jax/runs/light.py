"""What a light checkpoint holds: what acting reads of agent states, and all modules' masks."""

from pathlib import Path
from typing import Any

from mst_jax.agents import Agent
from mst_jax.agents.base import acting_parts, with_acting_parts
from mst_jax.runs import checkpoints
from mst_jax.runs.arrays import Arrays, expected, flatten, unflatten
from mst_jax.runs.changed import refuse_changed
from mst_jax.runs.checkpoints import Checkpoint
from mst_jax.runs.config_file import read_settings
from mst_jax.runs.folder import CHECKPOINTS
from mst_jax.runs.settings import Settings

MASKS = "masks/"  # prefix of array names


def to_light(agent: Agent, states: Any) -> Arrays:
    """Named arrays, (S, ...) each, of the agent states of S seeds."""
    acting = acting_parts(agent, states)
    masks = {f"{MASKS}{name}": mask for name, mask in flatten(agent.masks(states)).items()}
    return {**flatten(acting), **masks}


def from_light(agent: Agent, arrays: Arrays, states: Any) -> Any:
    """Agent states that act as those of a light checkpoint; all else is that of `states`.

    Checkpoints of before 2026-11-27 hold whole fields, critics too, which are left where they are.

    Raises:
        ValueError: when the arrays are of another configuration.
    """
    acting = acting_parts(agent, states)
    fields = {path.partition("/")[0] for path in acting}
    unread = expected({name: getattr(states, name) for name in fields}).keys() - expected(acting)
    found = {
        name: array
        for name, array in arrays.items()
        if not name.startswith(MASKS) and name not in unread
    }
    return with_acting_parts(states, unflatten(found, acting))


def masks_in(arrays: Arrays) -> Arrays:
    """{path: bool (S, ...)} of every masked leaf; paths begin with the module's name."""
    return {name[len(MASKS) :]: a for name, a in arrays.items() if name.startswith(MASKS)}


def read_light(folder: Path, tier: str = checkpoints.LIGHT) -> tuple[Settings, Checkpoint]:
    """A run's settings and its newest light checkpoint, or that of each seed's best policy so far.

    Args:
        folder: run folder.
        tier: `light` or `best`.

    Raises:
        ValueError: when the folder is not a run, there is no checkpoint of that tier yet, or its
            config.json was changed since the run began.
    """
    settings = read_settings(folder)
    loaded = checkpoints.load_newest(folder / CHECKPOINTS, tier)
    if loaded is None:
        first = "evaluation" if tier == checkpoints.LIGHT else "full checkpoint"
        raise ValueError(
            f"{folder} has no {tier} checkpoint yet; let it train to its first {first}"
        )
    if loaded.config is not None:
        refuse_changed(loaded, folder)
    return settings, loaded
