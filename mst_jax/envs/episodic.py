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


def episodic(spec: Spec, simulation: Simulation, *, lazy: bool = False) -> JaxEnv:
    """Cuts a simulation into episodes.

    Episode n starts from `simulation.start(fold_in(key, n))`, so it depends on nothing before it.

    Args:
      spec: sizes; `episode_length` None means no time limit.
      simulation: what happens within an episode.
      lazy: draw a start state only in the steps in which an episode ends (in any environment of
        a vmapped batch), rather than in every step. Worth it when a start costs about as much as
        a step, as in physics; results are the same.
    """
    restart = _restart_when_due if lazy else _restart_by_select

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
        following = restart(lambda: begin(state.key, state.episode + 1), going_on, ended)
        return following, Timestep(
            observation=simulation.observe(following.world),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            next_observation=simulation.observe(world),
        )

    return JaxEnv(spec, reset, step)


def _restart_by_select(
    begin: Callable[[], EpisodeState], going_on: EpisodeState, ended: jax.Array
) -> EpisodeState:
    """Begins the next episode always and takes it where one ended."""
    return jax.tree.map(lambda new, old: jnp.where(ended, new, old), begin(), going_on)


def _restart_when_due(
    begin: Callable[[], EpisodeState], going_on: EpisodeState, ended: jax.Array
) -> EpisodeState:
    """Begins the next episode in a loop that turns at most once.

    A `cond` would become a select under `vmap`; a loop keeps a scalar predicate, "did any end?".
    """
    turn = lambda carry: (begin(), jnp.zeros_like(carry[1]))  # noqa: E731
    return jax.lax.while_loop(lambda carry: carry[1], turn, (going_on, ended))[0]
