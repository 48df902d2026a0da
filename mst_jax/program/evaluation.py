"""Evaluation of the policy that is judged, on environments of its own."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.agents import Agent, player
from mst_jax.agents.base import Value
from mst_jax.envs import WORKER_TIMEOUT, EnvironmentFailedError, HostTask, JaxEnv
from mst_jax.program.cache import kept
from mst_jax.program.sharding import SEEDS, over_devices, seed_mesh, seeds_per_device
from mst_jax.program.state import Purpose, keys_for, over_seeds, seed_keys

MOST_TOGETHER = 32  # an environment of dm_control's dog takes 70 MB
SEED_OFFSET = 100  # evaluation has seeds of its own (docs/specs/mst-and-mrq.md §6.8)


class Evaluation(NamedTuple):
    """Whole episodes of every seed's policy, float64; NaN for an episode that has no return.

    Attributes:
        returns: (S, episodes), sums of rewards; NaN where the environment failed, or an action was
            not finite: numbers that are may overflow on the way to it.
        value_bias: (S, episodes), the critic's value of the first state and action less the
            discounted return that followed (Monte Carlo); NaN likewise. The value of a
            maximum-entropy critic contains its entropy bonus, and the return of a truncated episode
            ends there. NaN for an agent without values.
    """

    returns: np.ndarray
    value_bias: np.ndarray

    def of_healthy(self, healthy: np.ndarray) -> "Evaluation":
        """The same without the returns of seeds that are not healthy, (S,) bool."""
        return Evaluation(*(np.where(healthy[:, None], values, np.nan) for values in self))


class Evaluator(Protocol):
    """Plays whole episodes of the current policies.

    Attributes:
        failure: why it cannot play any more, in one line; None as long as it can. Episodes that it
            did not finish have no return.
    """

    failure: str | None

    def __call__(self, agent_states: Any, index: int) -> Evaluation:
        """Episodes of every seed's policy; `index` picks the start states."""

    def close(self) -> None:
        """Stops worker processes."""


def make_evaluator(
    agent: Agent,
    task: JaxEnv | HostTask,
    seeds: list[int],
    episodes: int,
    worker_timeout: float = WORKER_TIMEOUT,
) -> Evaluator:
    """The evaluator of `episodes` episodes for each of S seeds on either kind of environment.

    A worker process that does not answer for `worker_timeout` seconds counts as dead (0: never).
    """
    if isinstance(task, JaxEnv):
        return JaxEvaluator(agent, task, seeds, episodes)
    return HostEvaluator(agent, task, seeds, episodes, worker_timeout)


def episodes_together(num_seeds: int, episodes: int) -> int:
    """How many episodes of one seed run at once: a divisor of `episodes` that fits the limit."""
    limit = max(1, MOST_TOGETHER // num_seeds)
    return max(n for n in range(1, episodes + 1) if episodes % n == 0 and n <= limit)


class HostEvaluator:
    """Steps several episodes of all seeds together, one device call per step, in rounds."""

    def __init__(
        self,
        agent: Agent,
        task: HostTask,
        seeds: list[int],
        episodes: int,
        worker_timeout: float = WORKER_TIMEOUT,
    ) -> None:
        together = episodes_together(len(seeds), episodes)
        pairs = [(seed + SEED_OFFSET, index) for seed in seeds for index in range(together)]
        self.failure: str | None = None
        label = f"{task.spec.task} in evaluation, seeds + {SEED_OFFSET}"
        self._env = task.vector(pairs, timeout=worker_timeout, label=label)
        self._shape = (len(seeds), together)
        self._rounds = episodes // together
        self._discount = agent.discount
        self._keys = seed_keys([seed + SEED_OFFSET for seed in seeds])
        self._act, self._value = _act_and_value(agent, len(seeds))

    def __call__(self, agent_states: Any, index: int) -> Evaluation:
        """See `Evaluator`."""
        keys = episode_keys(self._keys, index, self._rounds * self._shape[1])
        rounds = [
            self._attempt(
                agent_states,
                index * self._rounds + number,
                keys[:, number * self._shape[1] : (number + 1) * self._shape[1]],
            )
            for number in range(self._rounds)
        ]
        return Evaluation(*(np.concatenate(parts, axis=1) for parts in zip(*rounds, strict=True)))

    def _attempt(self, agent_states: Any, episode: int, keys: jax.Array) -> Evaluation:
        """One whole episode in every environment, without returns once the environments failed."""
        if self.failure is None:
            try:
                return self._play(agent_states, episode, keys)
            except EnvironmentFailedError as error:
                self.failure = str(error)
        return Evaluation(np.full(self._shape, np.nan), np.full(self._shape, np.nan))

    def _play(self, agent_states: Any, episode: int, keys: jax.Array) -> Evaluation:
        """One whole episode in every environment, keys (S, together)."""
        observation = self._env.reset(episode=episode)
        count, space = observation.shape[0], self._env.spec.action
        returns, discounted, values = np.zeros(count), np.zeros(count), None
        running, weight = np.ones(count, bool), np.ones(count)
        for step in itertools.count():
            if not running.any():
                break
            batch = observation.reshape(*self._shape, *observation.shape[1:])
            action = self._act(agent_states, batch, keys, np.full(self._shape[0], step, np.int32))
            if values is None:
                values = np.asarray(self._value(agent_states, batch, action), np.float64)
            drawn = np.asarray(action).reshape(count, *space.shape)
            safe = space.safe(drawn)
            timestep = self._env.step(space.bounded(safe))
            lost = timestep.lost | (safe != drawn).reshape(count, -1).any(axis=1)
            reward = np.where(running, np.where(lost, np.nan, timestep.reward), 0.0)
            returns += reward
            discounted += weight.astype(np.float32) * reward  # as rewards are
            weight *= np.where(timestep.terminated | timestep.truncated, 0.0, self._discount)
            running &= ~timestep.over
            observation = timestep.observation
        return Evaluation(returns.reshape(self._shape), values - discounted.reshape(self._shape))

    def close(self) -> None:
        """Stops the worker processes."""
        self._env.close()


class JaxEvaluator:
    """Plays all episodes of all seeds inside one compiled loop."""

    def __init__(self, agent: Agent, env: JaxEnv, seeds: list[int], episodes: int) -> None:
        self.failure: str | None = None
        self._keys = seed_keys([seed + SEED_OFFSET for seed in seeds])
        self._play = _play(agent, env, len(seeds))
        self._episodes = episodes

    def __call__(self, agent_states: Any, index: int) -> Evaluation:
        """See `Evaluator`."""
        keys = episode_keys(self._keys, index, self._episodes)
        returns, biases = self._play(agent_states, keys)
        return Evaluation(np.asarray(returns, np.float64), np.asarray(biases, np.float64))

    def close(self) -> None:
        """Nothing to stop."""


@kept
def _act_and_value(agent: Agent, num_seeds: int) -> tuple[Callable, Callable]:
    """(states, observations, keys, step) -> actions, and (states, observations, actions) -> values.

    Of several episodes of each seed.
    """
    act, value = player(agent), value_of(agent)

    def acts(state: Any, observation: jax.Array, keys: jax.Array, step: jax.Array) -> jax.Array:
        return jax.vmap(act, (None, 0, 0))(state, observation, action_keys(keys, step))

    values = jax.vmap(value, (None, 0, 0))
    return _jitted(acts, num_seeds, arguments=4), _jitted(values, num_seeds, arguments=3)


@kept
def _play(agent: Agent, env: JaxEnv, num_seeds: int) -> Callable:
    """(states, keys (S, episodes)) -> returns and value biases of whole episodes."""
    return _jitted(jax.vmap(_episode(agent, env), (None, 0)), num_seeds, arguments=2)


def episode_keys(keys: jax.Array, index: int, episodes: int) -> jax.Array:
    """One key for each episode of an evaluation, (S, episodes), whatever is played together."""
    own = keys_for(keys, Purpose.EVALUATE, index)
    return jax.vmap(lambda key: jax.random.split(key, episodes))(own)


def action_keys(keys: jax.Array, step: jax.Array) -> jax.Array:
    """The keys of one step's actions from those of episodes, whose start states have them too."""
    return jax.vmap(lambda key: action_key(key, step))(keys)


def action_key(key: jax.Array, step: jax.typing.ArrayLike) -> jax.Array:
    """As `action_keys`, for one episode."""
    return jax.random.fold_in(jax.random.fold_in(key, Purpose.ACT), step)


def value_of(agent: Agent) -> Value:
    """An agent's value, or NaN for one without."""
    return agent.value or (lambda state, observation, action: jnp.full((), jnp.nan))


def _jitted(fn: Callable, num_seeds: int, arguments: int) -> Callable:
    """A function of one seed over all seeds, each on the device that has its policy."""
    mesh = seed_mesh(num_seeds)
    own = over_seeds(fn, seeds_per_device(num_seeds, mesh))
    return jax.jit(over_devices(own, mesh, (SEEDS,) * arguments, SEEDS))


class _Carry(NamedTuple):
    """An episode being played."""

    state: Any
    observation: jax.Array
    total: jax.Array
    discounted: jax.Array
    weight: jax.Array
    over: jax.Array
    lost: jax.Array
    step: jax.Array


def _episode(agent: Agent, env: JaxEnv) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """(agent state, key) -> return of one episode, and its value bias."""
    space, act, value = env.spec.action, player(agent), value_of(agent)

    def play(agent_state: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(carry: _Carry) -> _Carry:
            action = act(agent_state, carry.observation, action_key(key, carry.step))
            safe = space.safe(action)
            state, timestep = env.step(carry.state, space.bounded(safe))
            ended = timestep.terminated | timestep.truncated
            return _Carry(
                state,
                timestep.observation,
                carry.total + timestep.reward,
                carry.discounted + carry.weight * timestep.reward,
                jnp.where(ended, 0.0, carry.weight * agent.discount),
                timestep.over,
                carry.lost | timestep.lost | (safe != action).any(),
                carry.step + 1,
            )

        state, observation = env.reset(key)
        zero, no = jnp.zeros(()), jnp.zeros((), bool)
        begin = jnp.zeros((), jnp.int32)
        start = _Carry(state, observation, zero, zero, jnp.ones(()), no, no, begin)
        end = jax.lax.while_loop(lambda carry: ~carry.over, step, start)
        action = act(agent_state, observation, action_key(key, begin))
        bias = value(agent_state, observation, action) - end.discounted
        return jnp.where(end.lost, jnp.nan, end.total), jnp.where(end.lost, jnp.nan, bias)

    return play
