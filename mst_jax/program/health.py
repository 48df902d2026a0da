"""Whether a seed is finite, decided on the device; `runs.health` says what follows from it."""

from typing import Any

import jax
import jax.numpy as jnp

from mst_jax.agents import Agent
from mst_jax.agents.base import acting_parts


def finite(agent: Agent, states: Any) -> jax.Array:
    """Whether the online parameters and all that acting reads are finite, of S seeds: (S,) bool."""
    return _finite([agent.parameters(states), acting_parts(agent, states)])


def finite_policy(agent: Agent, states: Any) -> jax.Array:
    """Whether all that acting reads is finite, of S seeds: (S,) bool; of a light checkpoint."""
    return _finite(acting_parts(agent, states))


def _finite(read: Any) -> jax.Array:
    leaves = {id(leaf): leaf for leaf in jax.tree.leaves(read)}.values()  # acting reads parameters
    # Zero times NaN or infinity is NaN. This compiles in half the time that `isfinite` takes.
    zeros = [
        jnp.sum(leaf * 0.0, axis=tuple(range(1, leaf.ndim)))
        for leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return jnp.asarray(sum(zeros) == 0.0)
