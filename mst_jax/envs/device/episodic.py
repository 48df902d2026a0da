"""Episodes around a pure-JAX simulation: where they end, and what is observed there.

They end with the simulation, at the time limit, and where something has become non-finite. Each
starts afresh, and its final observation is kept.

Ours rather than brax's wrapper, which overwrites the final observation and replays one start
state for ever.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mst_jax.envs.base import JaxEnv, Spec, Timestep


class Simulation(NamedTuple):
    """A task without episodes. `world` is any pytree of arrays; a healthy one holds no NaN.

    Attributes:
        start: `start(key) -> world`, drawn afresh for each episode.
        observe: `observe(world) -> observation[*O]`, in the dtype of the spec.
        advance: `advance(world, action[A]) -> (world, reward, terminated)`, float32 and bool
            scalars.
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
        observation: [*O], what is to be acted on: the last one that was finite.
        idle: bool, the episode could not start, so that the next step is lost.
        errors: int32, steps lost so far.
    """

    key: jax.Array
    episode: jax.Array
    steps: jax.Array
    world: Any
    observation: jax.Array
    idle: jax.Array
    errors: jax.Array


def episodic(spec: Spec, simulation: Simulation, *, lazy: bool = False) -> JaxEnv:
    """Cuts a simulation into episodes.

    Episode n starts from `simulation.start(fold_in(key, n))`, so it depends on nothing before it.

    A step is lost when a NaN appears in the world, or when its reward or observation is not finite:
    its reward is 0, it is truncated, the last finite observation stands for its next one, and the
    next episode begins. A start with a NaN, or with an observation that is not finite, makes
    an episode of one step, which is lost.

    Args:
        spec: sizes; `episode_length` None means no time limit.
        simulation: what happens within an episode.
        lazy: draw a start state only in the steps in which an episode ends (in any environment of
            a vmapped batch), rather than in every step. Worth it when a start costs about as much
            as a step, as in physics; results are the same.
    """
    restart = _restart_when_due if lazy else _restart_by_select

    def start(key: jax.Array, episode: jax.Array) -> tuple[Any, jax.Array]:
        world = simulation.start(jax.random.fold_in(key, episode))
        return world, _broken(world, simulation.observe(world))

    def reset(key: jax.Array) -> tuple[EpisodeState, jax.Array]:
        zero = jnp.zeros((), jnp.int32)
        world, idle = start(key, zero)
        shown = simulation.observe(world)
        observation = jnp.where(idle, jnp.zeros_like(shown), shown)
        return EpisodeState(key, zero, zero, world, observation, idle, zero), observation

    def step(state: EpisodeState, action: jax.Array) -> tuple[EpisodeState, Timestep[jax.Array]]:
        world, reward, terminated = simulation.advance(state.world, action)
        reached = simulation.observe(world)
        lost = state.idle | _broken(world, reached, reward)
        terminated = terminated & ~lost
        timeout = spec.episode_length is not None and state.steps + 1 >= spec.episode_length
        truncated = lost | jnp.logical_and(timeout, ~terminated)
        ended = terminated | truncated
        begin = lambda: start(state.key, state.episode + 1)  # noqa: E731
        world, idle = restart(begin, (world, jnp.zeros((), bool)), ended)
        reached = jnp.where(lost, state.observation, reached)
        observation = jnp.where(idle, reached, simulation.observe(world))
        following = EpisodeState(
            key=state.key,
            episode=state.episode + ended,
            steps=jnp.where(ended, 0, state.steps + 1),
            world=world,
            observation=observation,
            idle=idle,
            errors=state.errors + lost,
        )
        reward = jnp.where(lost, 0.0, reward)
        timestep = Timestep(observation, reward, terminated, truncated, reached, lost, ended)
        return following, timestep

    return JaxEnv(spec, reset, step)


def _broken(world: Any, *finite: jax.Array) -> jax.Array:
    """Whether the world holds a NaN, or what is handed out is not finite.

    Infinity may have a meaning within a world, such as a limit that there is not.
    """
    leaves = [leaf for leaf in jax.tree.leaves(world) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    # Two reductions, not one for each leaf: physics has a hundred small ones.
    flat = lambda group: jnp.concatenate([jnp.zeros(0), *map(jnp.ravel, group)])  # noqa: E731
    return jnp.isnan(flat(leaves)).any() | ~jnp.isfinite(flat(finite)).all()


def _restart_by_select(begin: Callable[[], Any], going_on: Any, ended: jax.Array) -> Any:
    """Begins the next episode always and takes it where one ended."""
    return jax.tree.map(lambda new, old: jnp.where(ended, new, old), begin(), going_on)


def _restart_when_due(begin: Callable[[], Any], going_on: Any, ended: jax.Array) -> Any:
    """Begins the next episode in a loop that turns at most once.

    A `cond` would become a select under `vmap`; a loop keeps a scalar predicate, "did any end?".
    """
    turn = lambda carry: (begin(), jnp.zeros_like(carry[1]))  # noqa: E731
    return jax.lax.while_loop(lambda carry: carry[1], turn, (going_on, ended))[0]
