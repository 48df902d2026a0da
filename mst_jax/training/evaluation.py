"""Evaluation without exploration noise, on environments of its own."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.agents import Agent
from mst_jax.envs import HostTask, JaxEnv
from mst_jax.training.run_state import Purpose, keys_for, over_seeds, seed_keys

MOST_ENVIRONMENTS = 32  # an environment of dm_control's dog takes 70 MB
SEED_OFFSET = 100  # evaluation environments are seeded apart from the training ones (specs §6.8)


class Evaluator(Protocol):
    """Plays whole episodes of the current policies."""

    def __call__(self, agent_states: Any, index: int) -> np.ndarray:
        """Returns (S, episodes) of every seed's policy; `index` picks the start states."""

    def close(self) -> None:
        """Stops worker processes."""


def make_evaluator(
    agent: Agent, task: JaxEnv | HostTask, seeds: list[int], episodes: int
) -> Evaluator:
    """The evaluator of `episodes` episodes for each of S seeds on either kind of environment."""
    if isinstance(task, JaxEnv):
        return JaxEvaluator(agent, task, seeds, episodes)
    return HostEvaluator(agent, task, seeds, episodes)


def episodes_together(num_seeds: int, episodes: int) -> int:
    """How many episodes of one seed run at once: a divisor of `episodes` that fits the limit."""
    limit = max(1, MOST_ENVIRONMENTS // num_seeds)
    return max(n for n in range(1, episodes + 1) if episodes % n == 0 and n <= limit)


class HostEvaluator:
    """Steps several episodes of all seeds together, one device call per step, in rounds."""

    def __init__(self, agent: Agent, task: HostTask, seeds: list[int], episodes: int) -> None:
        together = episodes_together(len(seeds), episodes)
        pairs = [(seed + SEED_OFFSET, index) for seed in seeds for index in range(together)]
        self._env = task.vector(pairs)
        self._shape = (len(seeds), together)
        self._rounds = episodes // together
        act = jax.vmap(lambda state, observation: agent.act(state, observation, None), (None, 0))
        self._act = jax.jit(over_seeds(act, len(seeds)))

    def __call__(self, agent_states: Any, index: int) -> np.ndarray:
        """See `Evaluator`."""
        first = index * self._rounds
        rounds = [self._play(agent_states, first + number) for number in range(self._rounds)]
        return np.concatenate(rounds, axis=1)

    def _play(self, agent_states: Any, episode: int) -> np.ndarray:
        """One whole episode in every environment."""
        observation = self._env.reset(episode=episode)
        returns = np.zeros(observation.shape[0])
        running = np.ones(observation.shape[0], bool)
        while running.any():
            batch = observation.reshape(*self._shape, -1)
            action = np.asarray(self._act(agent_states, batch)).reshape(observation.shape[0], -1)
            timestep = self._env.step(np.nan_to_num(action))
            returns += np.where(running, timestep.reward, 0.0)
            running &= ~(timestep.terminated | timestep.truncated)
            observation = timestep.observation
        return returns.reshape(self._shape)

    def close(self) -> None:
        """Stops the worker processes."""
        self._env.close()


class JaxEvaluator:
    """Plays all episodes of all seeds inside one compiled loop."""

    def __init__(self, agent: Agent, env: JaxEnv, seeds: list[int], episodes: int) -> None:
        self._keys = seed_keys([seed + SEED_OFFSET for seed in seeds])
        play = jax.vmap(_episode(agent, env), (None, 0))
        self._play = jax.jit(over_seeds(play, len(seeds)))
        self._episodes = episodes

    def __call__(self, agent_states: Any, index: int) -> np.ndarray:
        """See `Evaluator`."""
        keys = keys_for(self._keys, Purpose.EVALUATE, index)
        split = jax.vmap(lambda key: jax.random.split(key, self._episodes))(keys)
        return np.asarray(self._play(agent_states, split), np.float64)

    def close(self) -> None:
        """Nothing to stop."""


def _episode(agent: Agent, env: JaxEnv) -> Callable[[Any, jax.Array], jax.Array]:
    """(agent state, key) -> return of one episode."""

    def play(agent_state: Any, key: jax.Array) -> jax.Array:
        def unfinished(carry: tuple) -> jax.Array:
            return ~carry[3]

        def step(carry: tuple) -> tuple:
            state, observation, total, _ = carry
            action = jnp.nan_to_num(agent.act(agent_state, observation, None))
            state, timestep = env.step(state, action)
            ended = timestep.terminated | timestep.truncated
            return state, timestep.observation, total + timestep.reward, ended

        state, observation = env.reset(key)
        start = (state, observation, jnp.zeros(()), jnp.zeros((), bool))
        return jax.lax.while_loop(unfinished, step, start)[2]

    return play
