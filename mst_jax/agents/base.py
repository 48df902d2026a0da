"""The contract between agents and trainer: pure functions of array-only state, for one seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
from flax import struct

from mst_jax import networks, topology
from mst_jax.envs.spaces import Action, Continuous, Observation

AgentState = Any
Metrics = dict[str, Any]  # float32 scalars; from `learn` also `Occasional`
Role = Literal["representation", "value", "policy"]
ROLES: tuple[Role, ...] = ("representation", "value", "policy")


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
        learning_rates: {module: float32 scalar} of the modules that differ in it.
    """

    tables: Mapping[str, tuple[topology.Table, ...]]
    learning_rates: Mapping[str, jax.Array]


class Review(NamedTuple):
    """When old memories are let go because the policy has moved away from them (RLx2).

    Attributes:
        every: agent steps from one review to the next; 0: never.
        distance: of the policy from its oldest actions, above which the oldest tenth goes.
        fewest: starts below which nothing goes.
    """

    every: int
    distance: float
    fewest: int


class Memory(NamedTuple):
    """The replay that an agent learns from.

    Attributes:
        capacity: transitions that a seed keeps, of all its environments together.
        span: consecutive transitions of one episode that a sampled start needs; `replay.create`.
        prioritised: whether `learn` gives back priorities.
        review: when old memories are let go; None never.
    """

    capacity: int
    span: int = 1
    prioritised: bool = False
    review: Review | None = None


class Latest(NamedTuple):
    """The transition that each of a seed's E environments just made, in the dtypes of its spec.

    Attributes:
        observation: (E, *O), what `action` was chosen for.
        action: (E, *A) as it was drawn; what was carried out lies within the action space.
        reward: (E,) float32.
        terminated: (E,) bool; do not bootstrap.
        truncated: (E,) bool.
        next_observation: (E, *O); the final observation where the episode ended.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_observation: jax.Array


class Experience(NamedTuple):
    """What there is to learn from; what an agent does not read is not computed.

    Attributes:
        latest: the transition just made; None where a `probe` asks between steps.
        replay: read-only view of the seed's memory; None in `learn` for an agent without one. A
            `probe` then sees the last transitions, which are kept for it alone.
    """

    latest: Latest | None
    replay: Any  # a replay.View, or None; an agent knows which it asked for


class Feedback(NamedTuple):
    """Priorities that `learn` gives back to the replay buffer."""

    indices: jax.Array  # int32 (B,)
    priorities: jax.Array  # float32 (B,), final values: the exponent is already applied


class Occasional(NamedTuple):
    """A metric that not every call of `learn` makes: its mean is over those that did.

    Attributes:
        total: float32 scalar, sum over the updates that made it; 0 where none did.
        count: int32 scalar, how many did.
    """

    total: jax.Array
    count: jax.Array


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


class Module(NamedTuple):
    """A network that is trained by an optimizer of its own, with a topology of its own.

    A temperature is no module: a scalar has no role in a recipe, no topology and no cost.

    Attributes:
        role: what it is for, by which recipes, diagnostics and studies know it.
        updates: steps that its own optimizer takes in the whole run, so that every schedule of its
            topology ends where the module ends.
        plan: its resolved topology plan.
        passes: what one of its updates costs the agent in training passes of the module, a sample
            each: 1 for its own (forward, and both gradients), a third for each forward pass or
            gradient besides, as in targets and in other modules' losses.
        positions: path of a kernel -> how often it is applied to a sample, if that is more than
            once: places of a convolution.
    """

    role: Role
    updates: int
    plan: topology.Plan
    passes: float = 1.0
    positions: Mapping[str, int] | None = None


class Init(Protocol):
    """Makes the state before the first step."""

    def __call__(self, key: jax.Array, numbers: Numbers | None = None) -> AgentState:
        """From one typed key; `numbers` replace those of the configuration."""


class Reset(Protocol):
    """The Reset baseline: begins again with the networks only."""

    def __call__(self, state: AgentState, key: jax.Array) -> AgentState:
        """Fresh networks and optimizers; masks, statistics and learning rates stay."""


class Recycle(Protocol):
    """The ReDo baseline: units that have gone silent begin again."""

    def __call__(
        self,
        state: AgentState,
        activities: Mapping[str, networks.Activity],
        key: jax.Array,
        threshold: float,
    ) -> AgentState:
        """See `mst_jax.agents.parts.recycling`.

        Args:
            state: of one seed.
            activities: {module: of its units on a batch}; others stay as they are.
            key: one typed key.
            threshold: share of its layer's mean up to which a unit is dormant.
        """


class Observe(Protocol):
    """Takes in what the environments show, such as running statistics of observations."""

    def __call__(self, state: AgentState, observation: jax.Array, first: jax.Array) -> AgentState:
        """Once a step, after learning and before acting.

        Args:
            state: of one seed.
            observation: (E, *O), what to act on next.
            first: (E,) bool, whether an episode begins with it.
        """


class Act(Protocol):
    """Chooses an action; also the form of `explore`."""

    def __call__(
        self,
        state: AgentState,
        observation: jax.Array,
        key: jax.Array | None,
        clock: Clock | None,
    ) -> jax.Array:
        """For one environment.

        Args:
            state: of its seed.
            observation: (*O,).
            key: one typed key; None, with the clock, for a policy without exploration.
            clock: of the run.

        Returns:
            An action (*A,) in the dtype of the action space. It is stored as it is, and brought
            into the space where it is carried out.
        """


class Evaluate(Protocol):
    """Chooses an action of the policy that is judged."""

    def __call__(self, state: AgentState, observation: jax.Array, key: jax.Array) -> jax.Array:
        """As `Act`, without the run's clock.

        Args:
            state: of the seed.
            observation: (*O,).
            key: one typed key, from the seed, the evaluation, the episode and the step in it alone.
        """


class Learn(Protocol):
    """Learns from experience; what is due depends on the clock only."""

    def __call__(
        self, state: AgentState, experience: Experience, key: jax.Array, clock: Clock
    ) -> tuple[AgentState, Feedback | None, Metrics]:
        """One call, of one or several updates.

        Args:
            state: of one seed.
            experience: what to learn from.
            key: one typed key.
            clock: of the run, never batched; `clock.update` is the number of this call.

        Returns:
            The new state; priorities if the memory is prioritised, else None; and metrics, float32
            scalars or `Occasional`, which names each module's own as module/metric.
        """


class Value(Protocol):
    """What the agent expects, for the bias of its values."""

    def __call__(self, state: AgentState, observation: jax.Array, action: jax.Array) -> jax.Array:
        """The value of (*O,) and (*A,): a scalar in units of reward; the mean of twin critics."""


class Probes(Protocol):
    """Lays the modules open for diagnostics."""

    def __call__(
        self, state: AgentState, experience: Experience, key: jax.Array, batch_size: int
    ) -> Mapping[str, Probe]:
        """{module: Probe} on a fresh batch; a module may be left out."""


class Agent(NamedTuple):
    """One algorithm, for one seed; the trainer vmaps it over seeds.

    Attributes:
        init: see `Init`.
        observe: see `Observe`.
        act: see `Act`.
        reset: see `Reset`.
        learn: see `Learn`.
        parameters: state -> {module: parameters}; the online networks.
        acting: what `act` and `evaluate` read of the state: names of its fields, or paths into
            them, such as `params/actor`. They make up a light checkpoint.
        masks: state -> {module: masks}; dense leaves carry topology's sentinel.
        modules: {module: what it is for, how often it is updated, its plan}.
        discount: per agent step.
        learning_starts: steps of `explore`, of each environment, before the first `learn`. With 0
            a run's first action is `act`'s; else it is one more of `explore`.
        learn_every: steps of each environment from one `learn` to the next.
        memory: the replay to learn from; None for an agent that learns from the latest transition.
        explore: acts until learning starts; None for uniform actions.
        evaluate: see `Evaluate`; None for `act` without key and clock.
        value: see `Value`; None for an agent without, whose values have no bias.
        probe: see `Probes`; None for none, and no such diagnostics.
        observes_start: whether `observe` is also given the run's very first observations.
        most_environments: of a seed; 1 for an agent whose traces belong to one stream, None for any
            number.
        recycle: see `Recycle`; None for an agent without.
        operations: state, of concrete arrays -> what `evaluate` does to an observation, as
            operations; without chance, where `evaluate` draws the mode of what it draws from. None
            for an agent whose policies cannot be exported.
    """

    init: Init
    observe: Observe
    act: Act
    reset: Reset
    learn: Learn
    parameters: Callable[[AgentState], Mapping[str, Any]]
    acting: tuple[str, ...]
    masks: Callable[[AgentState], Mapping[str, Any]]
    modules: Mapping[str, Module]
    discount: float
    learning_starts: int
    learn_every: int = 1
    memory: Memory | None = None
    explore: Act | None = None
    evaluate: Evaluate | None = None
    value: Value | None = None
    probe: Probes | None = None
    observes_start: bool = False
    most_environments: int | None = None
    recycle: Recycle | None = None
    operations: Callable[[AgentState], Sequence[networks.Operation]] | None = None

    @property
    def plans(self) -> dict[str, topology.Plan]:
        """{module: resolved topology plan}."""
        return {name: module.plan for name, module in self.modules.items()}


def acting_parts(agent: Agent, state: AgentState) -> dict[str, Any]:
    """{path: what lies there} of all that acting reads; states of many seeds too.

    Raises:
        LookupError: the state has no such part.
    """
    return {path: _part(state, path.split("/")) for path in agent.acting}


def with_acting_parts(state: AgentState, parts: Mapping[str, Any]) -> AgentState:
    """The state with parts of `acting_parts` in place of its own."""
    for path, part in parts.items():
        state = _with_part(state, path.split("/"), part)
    return state


def _part(node: Any, path: Sequence[str]) -> Any:
    for name in path:
        inner = node if isinstance(node, Mapping) else getattr(node, "__dict__", {})
        if name not in inner:
            raise LookupError(f"the state has no {'/'.join(path)}")
        node = inner[name]
    return node


def _with_part(node: Any, path: Sequence[str], part: Any) -> Any:
    if not path:
        return part
    inner = _with_part(_part(node, path[:1]), path[1:], part)
    if isinstance(node, Mapping):
        return {**node, path[0]: inner}
    return node.replace(**{path[0]: inner})


def learn_calls(steps: int, learning_starts: int, learn_every: int = 1) -> int:
    """How often `learn` is called in so many agent steps."""
    return -(-max(0, steps - learning_starts) // learn_every)


def explorer(agent: Agent, space: Action) -> Act:
    """How an agent acts until learning starts."""
    return agent.explore or (lambda state, observation, key, clock: space.sample(key))


def player(agent: Agent) -> Evaluate:
    """How an agent acts where it is judged."""
    return agent.evaluate or (
        lambda state, observation, key: agent.act(state, observation, None, None)
    )
