"""What training holds on the device, for all seeds, as one pytree of arrays."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mst_jax import replay
from mst_jax.agents import (
    Agent,
    Clock,
    Experience,
    Latest,
    Memory,
    Metrics,
    Numbers,
    Sizes,
    explorer,
)
from mst_jax.agents.base import Act
from mst_jax.envs import Spec

LOOKED_AT = 10_000  # last transitions kept for the diagnostics of an agent without a memory


class Purpose(IntEnum):
    """What a seed's key is folded with before use, so that no two uses share random numbers."""

    AGENT = 0
    ENVIRONMENT = 1
    ACT = 2
    LEARN = 3
    EVALUATE = 4
    RESET = 5
    DIAGNOSE = 6
    RECYCLE = 7
    REVIEW = 8


@struct.dataclass
class Totals:
    """Sums since the last log row; fetched and cleared once a chunk.

    Attributes:
        metrics: sums of the agent's metrics (S,) each, or `Occasional` of such.
        updates: int32 scalar, calls of `learn` summed.
        returns: sum of the returns of finished training episodes (S,), over all environments.
        episodes: int32 (S,), finished training episodes; lost ones have no return and do not count.
    """

    metrics: Metrics
    updates: jax.Array
    returns: jax.Array
    episodes: jax.Array


@struct.dataclass
class LoopState:
    """State of S seeds with E environments each; only `clock` has no seed axis.

    What belongs to environments has one flat axis: environment e of seed s is row s*E+e.

    Attributes:
        agent: agent states.
        buffer: replay buffer; for an agent without a memory a small one that only its probe reads,
            or None.
        environment: states of pure-JAX environments (S*E, ...), or None for host environments.
        observation: (S*E, O), what `action` was chosen for.
        action: (S*E, A), chosen and not yet taken.
        episode_return: (S*E,), of the unfinished training episodes.
        keys: (S,), one typed key per seed, never advanced.
        healthy: (S,) bool, false for ever once a check found that a seed is not finite.
        totals: metric sums.
        clock: step counters, stored once.
    """

    agent: Any
    buffer: replay.Buffer | None
    environment: Any
    observation: jax.Array
    action: jax.Array
    episode_return: jax.Array
    keys: jax.Array
    healthy: jax.Array
    totals: Totals
    clock: Clock

    @property
    def environments(self) -> int:
        """E."""
        return self.episode_return.shape[0] // self.healthy.shape[0]

    def by_seed(self, array: jax.Array) -> jax.Array:
        """(S*E, ...) as (S, E, ...)."""
        return array.reshape(-1, self.environments, *array.shape[1:])


def over_seeds(fn: Callable, num_seeds: int, in_axes: Any = 0) -> Callable:
    """`jax.vmap` over seeds, or environments; one is squeezed instead: a vmap of one is slower."""
    if num_seeds > 1:
        return jax.vmap(fn, in_axes)

    def squeezed(*args: Any) -> Any:
        axes = (in_axes,) * len(args) if isinstance(in_axes, int) else in_axes
        of_one = [
            arg if axis is None else jax.tree.map(lambda x: x.reshape(x.shape[1:]), arg)
            for arg, axis in zip(args, axes, strict=True)
        ]
        return jax.tree.map(lambda x: jnp.expand_dims(x, 0), fn(*of_one))

    return squeezed


def keys_for(keys: jax.Array, purpose: Purpose, step: jax.Array | int = 0) -> jax.Array:
    """One key per seed (S,) for one purpose at one step."""
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, purpose), step))(keys)


def environment_keys(keys: jax.Array, environments: int) -> jax.Array:
    """One key per environment (S*E,) from one per seed (S,); the only one of a seed has the seed's.

    Args:
        keys: of the seeds.
        environments: E.
    """
    if environments == 1:
        return keys
    return jax.vmap(lambda key: jax.random.split(key, environments))(keys).reshape(-1)


def seed_keys(seeds: list[int]) -> jax.Array:
    """One typed key per seed (S,)."""
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def empty_totals(metrics: Metrics, num_seeds: int) -> Totals:
    """Zero sums for metrics like these."""
    return Totals(
        metrics=jax.tree.map(lambda leaf: jnp.zeros(num_seeds, leaf.dtype), metrics),
        updates=jnp.zeros((), jnp.int32),
        returns=jnp.zeros(num_seeds),
        episodes=jnp.zeros(num_seeds, jnp.int32),
    )


def stored(agent: Agent) -> Memory | None:
    """What a seed stores: its memory, or what only its probe looks at, or nothing."""
    if agent.memory is None and agent.probe is not None:
        return Memory(LOOKED_AT)
    return agent.memory


def replay_layout(
    agent: Agent,
    sizes: Sizes | Spec,
    capacity: int,
    seeds: int,
    environments: int = 1,
    row_dtype: Any = jnp.float32,
) -> replay.Layout | None:
    """What the replay buffer of a run holds; None for an agent that stores nothing.

    Args:
        agent: says how long its samples are.
        sizes: what the environments show and take.
        capacity: slots per seed.
        seeds: S.
        environments: E, of each seed.
        row_dtype: dtype of stored float observations and actions.
    """
    memory = stored(agent)
    if memory is None:
        return None
    return replay.Layout(
        observation=sizes.observation,
        action=sizes.action,
        span=memory.span,
        capacity=capacity,
        seeds=seeds,
        environments=environments,
        row_dtype=jnp.dtype(row_dtype).name,
    )


def experience_of(agent: Agent, buffer: replay.Buffer | None, latest: Latest) -> Experience:
    """What an agent learns from, (S, ...); what is stored for its probe alone is not part of it."""
    return Experience(latest, replay.view(buffer) if agent.memory and buffer else None)


def between_steps(loop: LoopState) -> Experience:
    """What a probe draws from, (S, ...)."""
    return Experience(None, None if loop.buffer is None else replay.view(loop.buffer))


def choose(
    act: Act, states: Any, observation: jax.Array, keys: jax.Array, clock: Clock
) -> jax.Array:
    """Actions (S, E, *A) of agent states (S, ...) for observations (S, E, *O), keys (S, E)."""
    num_seeds, environments = observation.shape[:2]
    of_seed = over_seeds(act, environments, (None, 0, 0, None))
    return over_seeds(of_seed, num_seeds, (0, 0, 0, None))(states, observation, keys, clock)


def init_loop(
    agent: Agent,
    seeds: list[int],
    capacity: int,
    observation: jax.Array,
    sizes: Sizes | Spec,
    environment: Any = None,
    row_dtype: Any = jnp.float32,
    numbers: Numbers | None = None,
) -> LoopState:
    """The state before the first step.

    Args:
        agent: one-seed functions.
        seeds: one integer per seed.
        capacity: replay slots per seed, if the agent stores anything.
        observation: first observations (S*E, *O).
        sizes: what the environments show and take.
        environment: pure-JAX environment states (S*E, ...), if any.
        row_dtype: dtype of stored observations and actions.
        numbers: arrays (S, ...) in place of the configuration's, if runs differ in them.

    Returns:
        The loop. Its first actions are the agent's own if it learns from the first step on.
    """
    num_seeds = len(seeds)
    environments = observation.shape[0] // num_seeds
    keys = seed_keys(seeds)
    own = (keys_for(keys, Purpose.AGENT),) + (() if numbers is None else (numbers,))
    states, action = over_seeds(agent.init, num_seeds)(*own), sizes.action
    layout = replay_layout(agent, sizes, capacity, num_seeds, environments, row_dtype)
    buffer = None if layout is None else replay.create(layout)
    observation, lead = jnp.asarray(observation), (num_seeds, environments)
    by_seed = observation.reshape(*lead, *observation.shape[1:])
    if agent.observes_start:
        states = over_seeds(agent.observe, num_seeds)(states, by_seed, jnp.ones(lead, bool))
    clock = Clock(step=jnp.zeros((), jnp.int32), update=jnp.zeros((), jnp.int32))
    act_keys = environment_keys(keys_for(keys, Purpose.ACT), environments)
    act = explorer(agent, action) if agent.learning_starts else agent.act
    chosen = action.safe(choose(act, states, by_seed, act_keys.reshape(lead), clock))
    none, no = jnp.zeros(lead), jnp.zeros(lead, bool)
    experience = experience_of(agent, buffer, Latest(by_seed, chosen, none, no, no, by_seed))
    metrics = jax.eval_shape(
        jax.vmap(agent.learn, (0, 0, 0, None)), states, experience, keys, clock
    )[2]
    return LoopState(
        agent=states,
        buffer=buffer,
        environment=environment,
        observation=observation,
        action=chosen.reshape(len(observation), *action.shape),
        episode_return=jnp.zeros(len(observation)),
        keys=keys,
        healthy=jnp.ones(num_seeds, bool),
        totals=empty_totals(metrics, num_seeds),
        clock=clock,
    )
