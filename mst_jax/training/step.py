"""One step of all environments on the device: store, learn once per seed, choose next actions.

Environments are flat, (S*E, ...) and seed-major; only here are they given to agents as (S, E, ...).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import replay, topology
from mst_jax.agents import Agent, Metrics
from mst_jax.envs import JaxEnv, Timestep
from mst_jax.training.health import finite
from mst_jax.training.run_state import (
    Purpose,
    Run,
    Totals,
    empty_totals,
    environment_keys,
    keys_for,
    over_seeds,
    uniform_action,
)

Step = Callable[[Run, Timestep], Run]


def make_step(agent: Agent, num_seeds: int, learning: bool) -> Step:
    """The fused device call that follows each environment step.

    Whether the run is learning yet is known on the host, so warm-up and learning are two programs
    and neither contains a conditional for it.

    Args:
        agent: one-seed functions.
        num_seeds: S.
        learning: whether to learn and act by the policy, or only to store and act at random.

    Returns:
        (run, timestep of S*E environments) -> run whose `action` answers `timestep.observation`.
    """
    observe = over_seeds(agent.observe, num_seeds)
    learn = over_seeds(agent.learn, num_seeds, (0, 0, 0, None))

    def step(run: Run, timestep: Timestep) -> Run:
        run = _store(run, timestep)
        if learning:
            run = _learn(run, learn)
        # After learning: a batch is normalised by what was seen when its step was chosen.
        run = run.replace(agent=observe(run.agent, _by_seed(run.observation, run)))
        environments = run.buffer.environments
        seed_keys = keys_for(run.keys, Purpose.ACT, run.clock.step)
        keys = environment_keys(seed_keys, environments)
        if learning:
            act = over_seeds(over_seeds(agent.act, environments, (None, 0, 0)), num_seeds)
            action = act(run.agent, _by_seed(run.observation, run), _by_seed(keys, run))
        else:
            action = _by_seed(uniform_action(keys, run.action.shape[-1]), run)
        return run.replace(action=_safe(action, run.healthy).reshape(run.action.shape))

    return step


def make_advance(step: Step, env: JaxEnv, count: int) -> Callable[[Run, jax.Array], Run]:
    """A chunk for `count` = S*E pure-JAX environments on the device: (run, int32 steps) -> run."""
    env_step = over_seeds(env.step, count)

    def body(_: jax.Array, run: Run) -> Run:
        environment, timestep = env_step(run.environment, run.action)
        return step(run, timestep).replace(environment=environment)

    return lambda run, steps: jax.lax.fori_loop(0, steps, body, run)


def make_reset(agent: Agent, num_seeds: int) -> Callable[[Run], Run]:
    """Fresh networks and optimizers for all seeds; buffer, masks and statistics stay."""
    reset = over_seeds(agent.reset, num_seeds)

    def of_run(run: Run) -> Run:
        keys = keys_for(run.keys, Purpose.RESET, run.clock.step)
        return run.replace(agent=reset(run.agent, keys))

    return of_run


def finish_chunk(agent: Agent, run: Run) -> tuple[Run, Totals, Metrics]:
    """Marks seeds that are no longer finite, and hands out and clears the metric sums.

    Returns:
        The run with cleared sums, the sums, and each module's sparsity (S,) counted from its masks.
    """
    cleared = empty_totals(run.totals.metrics, run.healthy.shape[0])
    marked = run.replace(healthy=still_healthy(agent, run), totals=cleared)
    return marked, run.totals, _sparsities(agent, run)


def still_healthy(agent: Agent, run: Run) -> jax.Array:
    """Which seeds were healthy at every check until now, this one included: (S,) bool."""
    return run.healthy & finite(agent, run.agent)


def _sparsities(agent: Agent, run: Run) -> Metrics:
    def of_module(masks: Any) -> jax.Array:
        if not jax.tree.leaves(masks):  # a dense module has no masks, and vmap needs an array
            return jnp.zeros(run.healthy.shape)
        return 1.0 - jax.vmap(topology.density)(masks)

    return {name: of_module(masks) for name, masks in agent.masks(run.agent).items()}


def _store(run: Run, timestep: Timestep) -> Run:
    buffer = replay.insert(
        run.buffer,
        run.observation,
        run.action,
        timestep.reward,
        timestep.terminated,
        timestep.truncated,
        timestep.next_observation,
    )
    ended = timestep.terminated | timestep.truncated
    complete = ended & ~timestep.lost
    episode_return = run.episode_return + timestep.reward
    totals = run.totals.replace(
        returns=run.totals.returns
        + _by_seed(jnp.where(complete, episode_return, 0.0), run).sum(axis=1),
        episodes=run.totals.episodes + _by_seed(complete, run).sum(axis=1, dtype=jnp.int32),
    )
    return run.replace(
        buffer=buffer,
        observation=timestep.observation,
        episode_return=jnp.where(ended, 0.0, episode_return),
        totals=totals,
        clock=run.clock.replace(step=run.clock.step + 1),
    )


def _learn(run: Run, learn: Callable[..., Any]) -> Run:
    keys = keys_for(run.keys, Purpose.LEARN, run.clock.step)
    agent, feedback, metrics = learn(run.agent, replay.view(run.buffer), keys, run.clock)
    buffer = run.buffer
    if feedback is not None:
        buffer = replay.set_priorities(buffer, feedback.indices, feedback.priorities)
    return run.replace(
        agent=agent,
        buffer=buffer,
        totals=_add(run.totals, metrics),
        clock=run.clock.replace(update=run.clock.update + 1),
    )


def _add(totals: Totals, metrics: Metrics) -> Totals:
    sums = {name: totals.metrics[name] + value for name, value in metrics.items()}
    return totals.replace(metrics=sums, updates=totals.updates + 1)


def _safe(action: jax.Array, healthy: jax.Array) -> jax.Array:
    """Zero where an action is not finite or its seed is marked: physics must never see a NaN."""
    return jnp.where(healthy[:, None, None] & jnp.isfinite(action), action, 0.0)


def _by_seed(array: jax.Array, run: Run) -> jax.Array:
    """(S*E, ...) as (S, E, ...)."""
    return array.reshape(-1, run.buffer.environments, *array.shape[1:])
