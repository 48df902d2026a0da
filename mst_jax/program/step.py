"""One step of all environments on the device: store, learn once per seed, choose next actions.

Environments are flat, (S*E, ...) and seed-major; only here are they given to agents as (S, E, ...).
"""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import replay, topology
from mst_jax.agents import Agent, Latest, Metrics, explorer
from mst_jax.agents.base import Act
from mst_jax.envs import Action, JaxEnv, Timestep
from mst_jax.program.health import finite
from mst_jax.program.state import (
    LoopState,
    Purpose,
    Totals,
    choose,
    empty_totals,
    environment_keys,
    experience_of,
    keys_for,
    over_seeds,
)

Step = Callable[[LoopState, Timestep], LoopState]
Answer = Callable[[LoopState, Timestep], tuple[LoopState, Latest]]
Learn = Callable[[LoopState, Latest, jax.Array], LoopState]
Advance = Callable[[LoopState, jax.Array], LoopState]


class Phase(Enum):
    """What follows a step of the environments: programs of their own, chosen on the host."""

    EXPLORE = "store and explore"
    ACT = "store and act"
    LEARN = "store, learn and act"


class Half(Enum):
    """`Phase.LEARN` in two programs: environments step while the device is busy with the second."""

    ANSWER = "store and act"
    LEARN = "learn"


def phase_of(agent: Agent, step: int) -> Phase:
    """What follows the step after `step` steps of each environment."""
    learning = step - agent.learning_starts
    if learning < 0:
        return Phase.EXPLORE
    return Phase.ACT if learning % agent.learn_every else Phase.LEARN


def steps_to_learn(agent: Agent, step: int) -> int:
    """How many more steps of each environment are not followed by learning; 0 for `Phase.LEARN`."""
    learning = step - agent.learning_starts
    return -learning if learning < 0 else -learning % agent.learn_every


def phases_of(agent: Agent) -> tuple[Phase, ...]:
    """Those that a run of this agent has."""
    waits = {Phase.EXPLORE: agent.learning_starts > 0, Phase.ACT: agent.learn_every > 1}
    return tuple(phase for phase in Phase if waits.get(phase, True))


def make_step(agent: Agent, space: Action, num_seeds: int, phase: Phase) -> Step:
    """The fused device call that follows each environment step.

    What it does is known on the host, so each phase is a program of its own and none contains a
    conditional for it.

    Args:
        agent: one-seed functions.
        space: of actions.
        num_seeds: S.
        phase: what to do.

    Returns:
        (loop, timestep of S*E environments) -> loop whose `action` answers `timestep.observation`.
    """
    act = explorer(agent, space) if phase is Phase.EXPLORE else agent.act

    def step(loop: LoopState, timestep: Timestep) -> LoopState:
        latest = _latest(loop, timestep)
        loop = _store(loop, timestep)
        if phase is Phase.LEARN:
            loop = _learn(agent, num_seeds, loop, latest)
        # After learning: a batch is normalised by what was seen when its step was chosen.
        loop = _observe(agent, num_seeds, loop, timestep.over)
        return replace(loop, action=_choose(act, space, loop))

    return step


def make_halves(agent: Agent, space: Action, num_seeds: int) -> tuple[Answer, Learn]:
    """`Phase.LEARN` with actions of the parameters before learning, as two device calls.

    Batches are normalised as in one call, and without a change of parameters all is the same.

    Args:
        agent: one-seed functions.
        space: of actions.
        num_seeds: S.

    Returns:
        (loop, timestep of S*E environments) -> loop whose `action` answers
        `timestep.observation`, transitions (S, E, ...); and (that loop, transitions, (S*E,) bool
        of environments whose episode is over) -> loop that has learned and observed.
    """

    def answer(loop: LoopState, timestep: Timestep) -> tuple[LoopState, Latest]:
        latest = _latest(loop, timestep)
        loop = _store(loop, timestep)
        seen = _observe(agent, num_seeds, loop, timestep.over)
        return replace(loop, action=_choose(agent.act, space, seen)), latest

    def learn(loop: LoopState, latest: Latest, over: jax.Array) -> LoopState:
        return _observe(agent, num_seeds, _learn(agent, num_seeds, loop, latest), over)

    return answer, learn


def make_advance(
    step: Step, env: JaxEnv, count: int, between: Step | None = None, learn_every: int = 1
) -> Advance:
    """A chunk of steps of pure-JAX environments.

    Args:
        step: what follows a step of the environments.
        env: one of them.
        count: S*E.
        between: what follows all but each `learn_every`-th step, if that is something else.
        learn_every: steps from one `step` to the next.

    Returns:
        (loop, int32 number of steps of each environment) -> loop; the first step is followed by
        `step`.
    """
    env_step, space = over_seeds(env.step, count), env.spec.action

    def body(step: Step) -> Callable[[jax.Array, LoopState], LoopState]:
        def of_all(_: jax.Array, loop: LoopState) -> LoopState:
            environment, timestep = env_step(loop.environment, space.bounded(loop.action))
            return replace(step(loop, timestep), environment=environment)

        return of_all

    def advance(loop: LoopState, steps: jax.Array) -> LoopState:
        if between is None:
            return jax.lax.fori_loop(0, steps, body(step), loop)

        def cycle(index: jax.Array, loop: LoopState) -> LoopState:
            left = jnp.minimum(learn_every, steps - index * learn_every)
            loop = body(step)(index, loop)
            return jax.lax.fori_loop(0, left - 1, body(between), loop)

        return jax.lax.fori_loop(0, -(-steps // learn_every), cycle, loop)

    return advance


def make_reset(agent: Agent, num_seeds: int) -> Callable[[LoopState], LoopState]:
    """Fresh networks and optimizers for all seeds; buffer, masks and statistics stay."""
    reset = over_seeds(agent.reset, num_seeds)

    def of_run(loop: LoopState) -> LoopState:
        keys = keys_for(loop.keys, Purpose.RESET, loop.clock.step)
        return replace(loop, agent=reset(loop.agent, keys))

    return of_run


def finish_chunk(agent: Agent, loop: LoopState) -> tuple[LoopState, Totals, Metrics]:
    """Marks seeds that are no longer finite, and hands out and clears the metric sums.

    Returns:
        The loop with cleared sums, the sums, and each module's sparsity (S,), counted from masks.
    """
    cleared = empty_totals(loop.totals.metrics, loop.healthy.shape[0])
    marked = replace(loop, healthy=still_healthy(agent, loop), totals=cleared)
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


def _latest(loop: LoopState, timestep: Timestep) -> Latest:
    """The transition that all environments just made, (S, E, ...)."""
    return Latest(
        loop.by_seed(loop.observation),
        loop.by_seed(loop.action),
        loop.by_seed(timestep.reward),
        loop.by_seed(timestep.terminated),
        loop.by_seed(timestep.truncated),
        loop.by_seed(timestep.next_observation),
    )


def _store(loop: LoopState, timestep: Timestep) -> LoopState:
    buffer = (
        None
        if loop.buffer is None
        else replay.insert(
            loop.buffer,
            loop.observation,
            loop.action,
            timestep.reward,
            timestep.terminated,
            timestep.truncated,
            timestep.next_observation,
        )
    )
    complete = timestep.over & ~timestep.lost
    episode_return = loop.episode_return + timestep.reward
    totals = replace(
        loop.totals,
        returns=loop.totals.returns
        + loop.by_seed(jnp.where(complete, episode_return, 0.0)).sum(axis=1),
        episodes=loop.totals.episodes + loop.by_seed(complete).sum(axis=1, dtype=jnp.int32),
    )
    return replace(
        loop,
        buffer=buffer,
        observation=timestep.observation,
        episode_return=jnp.where(timestep.over, 0.0, episode_return),
        totals=totals,
        clock=replace(loop.clock, step=loop.clock.step + 1),
    )


def _observe(agent: Agent, num_seeds: int, loop: LoopState, over: jax.Array) -> LoopState:
    """The loop whose agents have seen its observations; `over` says which begin an episode."""
    observe = over_seeds(agent.observe, num_seeds)
    states = observe(loop.agent, loop.by_seed(loop.observation), loop.by_seed(over))
    return replace(loop, agent=states)


def _choose(act: Act, space: Action, loop: LoopState) -> jax.Array:
    """Actions (S*E, *A) for the loop's observations."""
    seed_keys = keys_for(loop.keys, Purpose.ACT, loop.clock.step)
    keys = loop.by_seed(environment_keys(seed_keys, loop.environments))
    action = choose(act, loop.agent, loop.by_seed(loop.observation), keys, loop.clock)
    return _acted(space, action, loop.healthy).reshape(loop.action.shape)


def _learn(agent: Agent, num_seeds: int, loop: LoopState, latest: Latest) -> LoopState:
    learn = over_seeds(agent.learn, num_seeds, (0, 0, 0, None))
    keys = keys_for(loop.keys, Purpose.LEARN, loop.clock.step)
    experience = experience_of(agent, loop.buffer, latest)
    states, feedback, metrics = learn(loop.agent, experience, keys, loop.clock)
    buffer, prioritised = loop.buffer, agent.memory is not None and agent.memory.prioritised
    if prioritised != (feedback is not None):
        raise ValueError(
            f"the agent's memory says prioritised={prioritised}, and its learn returns "
            f"{'no ' if prioritised else ''}priorities: change one of them"
        )
    if feedback is not None and buffer is not None:
        buffer = replay.set_priorities(buffer, feedback.indices, feedback.priorities)
    return replace(
        loop,
        agent=states,
        buffer=buffer,
        totals=_add(loop.totals, metrics),
        clock=replace(loop.clock, update=loop.clock.update + 1),
    )


def _add(totals: Totals, metrics: Metrics) -> Totals:
    sums = jax.tree.map(jnp.add, totals.metrics, metrics)
    return replace(totals, metrics=sums, updates=totals.updates + 1)


def _acted(space: Action, action: jax.Array, healthy: jax.Array) -> jax.Array:
    """Actions (S, E, ...) with zero where one is not finite or its seed is marked.

    Physics must never see a NaN, nor must replay.
    """
    healthy = healthy.reshape(-1, *(1,) * (action.ndim - 1))
    return jnp.where(healthy, space.safe(action), jnp.zeros_like(action))
