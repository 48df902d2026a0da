"""One step of all environments on the device: store, learn once per seed, choose next actions.

Environments are flat, (S*E, ...) and seed-major; only here are they given to agents as (S, E, ...).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import replay, topology
from mst_jax.agents import Agent, Metrics
from mst_jax.envs import Action, JaxEnv, Timestep
from mst_jax.program.health import finite
from mst_jax.program.state import (
    LoopState,
    Purpose,
    Totals,
    empty_totals,
    environment_keys,
    keys_for,
    over_seeds,
)

Step = Callable[[LoopState, Timestep], LoopState]


def make_step(agent: Agent, space: Action, num_seeds: int, learning: bool) -> Step:
    """The fused device call that follows each environment step.

    Whether the run is learning yet is known on the host, so warm-up and learning are two programs
    and neither contains a conditional for it.

    Args:
        agent: one-seed functions.
        space: of actions.
        num_seeds: S.
        learning: whether to learn and act by the policy, or only to store and act at random.

    Returns:
        (loop, timestep of S*E environments) -> loop whose `action` answers `timestep.observation`.
    """
    observe = over_seeds(agent.observe, num_seeds)
    learn = over_seeds(agent.learn, num_seeds, (0, 0, 0, None))

    def step(loop: LoopState, timestep: Timestep) -> LoopState:
        loop = _store(loop, timestep)
        if learning:
            loop = _learn(loop, learn)
        # After learning: a batch is normalised by what was seen when its step was chosen.
        loop = loop.replace(agent=observe(loop.agent, _by_seed(loop.observation, loop)))
        environments = loop.buffer.layout.environments
        seed_keys = keys_for(loop.keys, Purpose.ACT, loop.clock.step)
        keys = environment_keys(seed_keys, environments)
        if learning:
            act = over_seeds(over_seeds(agent.act, environments, (None, 0, 0)), num_seeds)
            action = act(loop.agent, _by_seed(loop.observation, loop), _by_seed(keys, loop))
        else:
            action = _by_seed(jax.vmap(space.sample)(keys), loop)
        action = _acted(space, action, loop.healthy)
        return loop.replace(action=action.reshape(loop.action.shape))

    return step


def make_advance(
    step: Step, env: JaxEnv, count: int
) -> Callable[[LoopState, jax.Array], LoopState]:
    """A chunk for `count` = S*E pure-JAX environments: (loop, int32 steps) -> loop."""
    env_step, space = over_seeds(env.step, count), env.spec.action

    def body(_: jax.Array, loop: LoopState) -> LoopState:
        environment, timestep = env_step(loop.environment, space.bounded(loop.action))
        return step(loop, timestep).replace(environment=environment)

    return lambda loop, steps: jax.lax.fori_loop(0, steps, body, loop)


def make_reset(agent: Agent, num_seeds: int) -> Callable[[LoopState], LoopState]:
    """Fresh networks and optimizers for all seeds; buffer, masks and statistics stay."""
    reset = over_seeds(agent.reset, num_seeds)

    def of_run(loop: LoopState) -> LoopState:
        keys = keys_for(loop.keys, Purpose.RESET, loop.clock.step)
        return loop.replace(agent=reset(loop.agent, keys))

    return of_run


def finish_chunk(agent: Agent, loop: LoopState) -> tuple[LoopState, Totals, Metrics]:
    """Marks seeds that are no longer finite, and hands out and clears the metric sums.

    Returns:
        The loop with cleared sums, the sums, and each module's sparsity (S,), counted from masks.
    """
    cleared = empty_totals(loop.totals.metrics, loop.healthy.shape[0])
    marked = loop.replace(healthy=still_healthy(agent, loop), totals=cleared)
    return marked, loop.totals, _sparsities(agent, loop)


def still_healthy(agent: Agent, loop: LoopState) -> jax.Array:
    """Which seeds were healthy at every check until now, this one included: (S,) bool."""
    return loop.healthy & finite(agent, loop.agent)


def _sparsities(agent: Agent, loop: LoopState) -> Metrics:
    def of_module(masks: Any) -> jax.Array:
        if not jax.tree.leaves(masks):  # a dense module has no masks, and vmap needs an array
            return jnp.zeros(loop.healthy.shape)
        return 1.0 - jax.vmap(topology.density)(masks)

    return {name: of_module(masks) for name, masks in agent.masks(loop.agent).items()}


def _store(loop: LoopState, timestep: Timestep) -> LoopState:
    buffer = replay.insert(
        loop.buffer,
        loop.observation,
        loop.action,
        timestep.reward,
        timestep.terminated,
        timestep.truncated,
        timestep.next_observation,
    )
    complete = timestep.over & ~timestep.lost
    episode_return = loop.episode_return + timestep.reward
    totals = loop.totals.replace(
        returns=loop.totals.returns
        + _by_seed(jnp.where(complete, episode_return, 0.0), loop).sum(axis=1),
        episodes=loop.totals.episodes + _by_seed(complete, loop).sum(axis=1, dtype=jnp.int32),
    )
    return loop.replace(
        buffer=buffer,
        observation=timestep.observation,
        episode_return=jnp.where(timestep.over, 0.0, episode_return),
        totals=totals,
        clock=loop.clock.replace(step=loop.clock.step + 1),
    )


def _learn(loop: LoopState, learn: Callable[..., Any]) -> LoopState:
    keys = keys_for(loop.keys, Purpose.LEARN, loop.clock.step)
    agent, feedback, metrics = learn(loop.agent, replay.view(loop.buffer), keys, loop.clock)
    buffer = loop.buffer
    if feedback is not None:
        buffer = replay.set_priorities(buffer, feedback.indices, feedback.priorities)
    return loop.replace(
        agent=agent,
        buffer=buffer,
        totals=_add(loop.totals, metrics),
        clock=loop.clock.replace(update=loop.clock.update + 1),
    )


def _add(totals: Totals, metrics: Metrics) -> Totals:
    sums = {name: totals.metrics[name] + value for name, value in metrics.items()}
    return totals.replace(metrics=sums, updates=totals.updates + 1)


def _acted(space: Action, action: jax.Array, healthy: jax.Array) -> jax.Array:
    """Actions (S, E, ...) with zero where one is not finite or its seed is marked.

    Physics must never see a NaN, nor must replay.
    """
    healthy = healthy.reshape(-1, *(1,) * (action.ndim - 1))
    return jnp.where(healthy, space.safe(action), jnp.zeros_like(action))


def _by_seed(array: jax.Array, loop: LoopState) -> jax.Array:
    """(S*E, ...) as (S, E, ...)."""
    return array.reshape(-1, loop.buffer.layout.environments, *array.shape[1:])
