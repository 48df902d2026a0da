"""A pure-JAX environment whose key decides how it fails, so that one program meets every fault."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mst_jax.envs.base import vector_spec
from mst_jax.envs.device.episodic import Simulation, episodic

FAULTS = (
    "NaN in the world",
    "NaN observation",
    "infinite observation",
    "NaN reward",
    "infinite reward",
    "terminated with a NaN",
    "NaN at the start",
)
EPISODE, STEP, LENGTH = 2, 4, 6  # it happens in the fourth step of episode 2, or at its start


def key_of(fault):
    """The key of an environment that meets a fault; other keys never do."""
    return jax.random.key(1_000 + FAULTS.index(fault))


class World(NamedTuple):
    start: jax.Array
    steps: jax.Array
    hidden: jax.Array
    fault: jax.Array


def make(lazy=False):
    """Observes two random numbers of the episode, the steps and the last action; reward 1 + action.

    Episodes end at the time limit, or by termination when the first action is above 0.9.
    """
    marked = [jax.random.key_data(jax.random.fold_in(key_of(fault), EPISODE)) for fault in FAULTS]
    marked = jnp.stack(marked)

    def start(key):
        known = (marked == jax.random.key_data(key)).all(axis=1)
        fault = jnp.where(known.any(), known.argmax(), -1)
        hidden = jnp.where(fault == FAULTS.index("NaN at the start"), jnp.nan, 0.0)
        return World(jax.random.uniform(key, (2,)), jnp.zeros(()), hidden, fault)

    def observe(world):
        due = world.steps == STEP
        spoilt = jnp.where(due & is_(world, "NaN observation"), jnp.nan, world.steps)
        spoilt = jnp.where(due & is_(world, "infinite observation"), -jnp.inf, spoilt)
        return jnp.concatenate([world.start, spoilt[None]])

    def advance(world, action):
        steps = world.steps + 1
        due = steps == STEP
        end = due & is_(world, "terminated with a NaN")
        bad = end | (due & is_(world, "NaN in the world"))
        reward = jnp.where(due & is_(world, "NaN reward"), jnp.nan, 1 + action[0])
        reward = jnp.where(due & is_(world, "infinite reward"), jnp.inf, reward)
        world = world._replace(steps=steps, hidden=jnp.where(bad, jnp.nan, world.hidden))
        return world, reward, end | (action[0] > 0.9)

    def is_(world, fault):
        return world.fault == FAULTS.index(fault)

    spec = vector_spec("fake:faulty", 3, 2, LENGTH, 1)
    return episodic(spec, Simulation(start, observe, advance), lazy=lazy)
