"""What a light checkpoint holds: the fields of agent states that acting reads, and the masks."""

from typing import Any

from mst_jax.agents import Agent
from mst_jax.runs.arrays import Arrays, flatten, unflatten

MASKS = "masks/"  # prefix of array names


def to_light(agent: Agent, states: Any) -> Arrays:
    """Named arrays, (S, ...) each, of the agent states of S seeds."""
    acting = {name: getattr(states, name) for name in agent.acting}
    masks = {f"{MASKS}{name}": mask for name, mask in flatten(agent.masks(states)).items()}
    return {**flatten(acting), **masks}


def from_light(agent: Agent, arrays: Arrays, states: Any) -> Any:
    """Agent states that act as those of a light checkpoint; other fields are those of `states`.

    Raises:
        ValueError: when the arrays are of another configuration.
    """
    acting = {name: getattr(states, name) for name in agent.acting}
    found = {name: array for name, array in arrays.items() if not name.startswith(MASKS)}
    return states.replace(**unflatten(found, acting))


def masks_in(arrays: Arrays) -> Arrays:
    """{path: bool (S, ...)} of every masked leaf; paths begin with the module's name."""
    return {name[len(MASKS) :]: a for name, a in arrays.items() if name.startswith(MASKS)}
