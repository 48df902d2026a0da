"""Episodes around a pure-JAX simulation: time limit, and restart with the final observation kept.

Ours rather than brax's wrapper, which overwrites the final observation and replays one start
state for ever (DESIGN §6).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mst_jax.envs.base import JaxEnv, Spec, Timestep


class Simulation(NamedTuple):
    """A task without episodes. `world` is any pytree of arrays.

    Attributes:
      start: `start(key) -> world`, drawn afresh for each episode.
      observe: `observe(world) -> observation[O]` float32.
      advance: `advance(world, action[A]) -> (world, reward, terminated)`, float32 and bool scalars.
    """

    start: Callable[[jax.Array], Any]
    observe: Callable[[Any], jax.Array]
    advance: Callable[[Any, jax.Array], tuple[Any, jax.Array, jax.Array]]


class EpisodeState(NamedTuple):
    """State of an episodic environment.

    Attributes:
      key: the environment's own typed key; it never changes.
      episode: int32, number of the current episode.
      steps: int32, agent steps taken in it.
      world: the simulation's state.
    """

    key: jax.Array
    episode: jax.Array
    steps: jax.Array
    world: Any


def episodic(spec: Spec, simulation: Simulation) -> JaxEnv:
    """Cuts a simulation into episodes.

    Episode n starts from `simulation.start(fold_in(key, n))`, so it depends on nothing before it.
    The restart is a select, not a `cond`: under `vmap` over seeds it would become one anyway.

    Args:
      spec: sizes; `episode_length` None means no time limit.
      simulation: what happens within an episode.
    """

    def begin(key: jax.Array, episode: jax.Array) -> EpisodeState:
        world = simulation.start(jax.random.fold_in(key, episode))
        return EpisodeState(key, episode, jnp.zeros((), jnp.int32), world)

    def reset(key: jax.Array) -> tuple[EpisodeState, jax.Array]:
        state = begin(key, jnp.zeros((), jnp.int32))
        return state, simulation.observe(state.world)

    def step(state: EpisodeState, action: jax.Array) -> tuple[EpisodeState, Timestep]:
        world, reward, terminated = simulation.advance(state.world, action)
        going_on = EpisodeState(state.key, state.episode, state.steps + 1, world)
        timeout = spec.episode_length is not None and going_on.steps >= spec.episode_length
        truncated = jnp.logical_and(timeout, ~terminated)
        ended = terminated | truncated
        fresh = begin(state.key, state.episode + 1)
        following = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, going_on)
        return following, Timestep(
            observation=simulation.observe(following.world),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            next_observation=simulation.observe(world),
        )

    return JaxEnv(spec, reset, step)
