"""For agents whose networks take flat observations and give continuous actions."""

from mst_jax.agents.base import Sizes
from mst_jax.envs.spaces import Continuous


def vector_sizes(sizes: Sizes) -> tuple[int, int]:
    """How many numbers an observation and an action have, (O, A).

    Raises:
        ValueError: the task shows pictures or takes discrete actions.
    """
    return vector_size(sizes), action_size(sizes)


def vector_size(sizes: Sizes) -> int:
    """How many numbers an observation has; ValueError for a task that shows pictures."""
    if not sizes.observation.is_vector:
        raise ValueError(
            "this agent takes flat observations of float32, and the task shows "
            f"{sizes.observation.dtype}{list(sizes.observation.shape)}: choose another of the two"
        )
    return sizes.observation.size


def action_size(sizes: Sizes) -> int:
    """How many numbers an action has; ValueError for a task that takes discrete actions."""
    if not isinstance(sizes.action, Continuous):
        raise ValueError(
            f"this agent's actions are continuous, and the task takes one of {sizes.action.count} "
            "choices: choose another of the two"
        )
    return sizes.action.size
