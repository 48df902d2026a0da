"""The contract between agents and trainer: pure functions of array-only state, for one seed."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import struct

from mst_jax import networks, topology
from mst_jax.envs.spaces import Action, Continuous, Observation

AgentState = Any
Metrics = dict[str, jax.Array]


@struct.dataclass
class Clock:
    """What decides whether work is due; stored once, never batched (docs/design.md rule 3).

    Attributes:
        step: int32 scalar, steps taken so far by each environment.
        update: int32 scalar, calls of `learn` made so far.
    """

    step: jax.Array
    update: jax.Array


class Sizes(NamedTuple):
    """What an agent must know of its task; `envs.Spec` has these fields too.

    Attributes:
        observation: shape and dtype of what the task shows.
        action: the space of what it takes.
        episode_length: agent steps of the longest episode; None if unlimited.
    """

    observation: Observation
    action: Action
    episode_length: int | None = None

    @classmethod
    def vector(
        cls, observation_size: int, action_size: int, episode_length: int | None = None
    ) -> "Sizes":
        """Of a task with flat observations and continuous actions."""
        return cls(Observation((observation_size,)), Continuous(action_size), episode_length)


class Numbers(NamedTuple):
    """What may differ between runs of one compiled program, as arrays.

    Attributes:
        tables: {module: counts of its topology plan}.
        learning_rates: {module: float32 scalar}.
    """

    tables: Mapping[str, tuple[topology.Table, ...]]
    learning_rates: Mapping[str, jax.Array]


class Feedback(NamedTuple):
    """Priorities that `learn` gives back to the replay buffer."""

    indices: jax.Array  # int32 (B,)
    priorities: jax.Array  # float32 (B,), final values: the exponent is already applied


class Probe(NamedTuple):
    """One module on one batch, for diagnostics.

    Attributes:
        params: its parameters.
        masks: its masks; dense leaves carry topology's sentinel.
        activity: of its hidden units (B, units).
        samples: pytree with a leading axis of B, what one sample of the module's loss needs.
        loss: (parameters, one sample) -> scalar; the module's training loss is its mean.
    """

    params: Any
    masks: Any
    activity: networks.Activity
    samples: Any
    loss: Callable[[Any, Any], jax.Array]


class Agent(NamedTuple):
    """One algorithm, for one seed; the trainer vmaps it over seeds.

    Attributes:
        init: (key, Numbers or None) -> state; numbers replace those of the configuration.
        observe: (state, observations (E, O)) -> state; running statistics of observations, of one
            step of the seed's E environments.
        act: (state, observation (O,), key or None) -> action (A,) in [-1, 1]; without a key
            there is no exploration.
        reset: (state, key) -> state with fresh networks and optimizers, and the same masks,
            observation statistics and learning rates: the Reset baseline.
        learn: (state, replay view, key, clock) -> (state, Feedback or None, metrics of scalars).
        value: (state, observation (O,), action (A,)) -> the critic's value, a scalar in units of
            reward; the mean of twin critics.
        probe: (state, replay view, key, batch size) -> {module: Probe} on a fresh batch.
        parameters: state -> {module: parameters}; the online networks.
        acting: names of the state's fields that `act` reads; they make up a light checkpoint.
        masks: state -> {module: masks}; dense leaves carry topology's sentinel.
        plans: {module: resolved topology plan}.
        learning_starts: steps of uniform random actions, of each environment, before the first
            `learn`.
        buffer_size: replay capacity of a seed in environment steps.
        discount: per agent step.
        span: consecutive transitions of one episode that a sampled start needs; `replay.create`.
    """

    init: Callable[..., AgentState]
    observe: Callable[[AgentState, jax.Array], AgentState]
    act: Callable[[AgentState, jax.Array, jax.Array | None], jax.Array]
    reset: Callable[[AgentState, jax.Array], AgentState]
    learn: Callable[..., tuple[AgentState, Feedback | None, Metrics]]
    value: Callable[[AgentState, jax.Array, jax.Array], jax.Array]
    probe: Callable[..., Mapping[str, Probe]]
    parameters: Callable[[AgentState], Mapping[str, Any]]
    acting: tuple[str, ...]
    masks: Callable[[AgentState], Mapping[str, Any]]
    plans: Mapping[str, topology.Plan]
    learning_starts: int
    buffer_size: int
    discount: float
    span: int
