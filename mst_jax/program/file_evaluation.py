"""Evaluation of an exported policy: what ships is what plays, on the host, one step at a time."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

from mst_jax.envs import HostTask, JaxEnv, Timestep
from mst_jax.envs.spaces import Continuous
from mst_jax.export.policy_file import range_of
from mst_jax.program.evaluation import SEED_OFFSET, episode_keys, episodes_together
from mst_jax.program.state import seed_keys


class FilePolicy(Protocol):
    """What `mst_jax.load_exported` gives."""

    @property
    def description(self) -> Mapping[str, Any]:
        """What it takes and gives."""

    def reset(self) -> None:
        """Episodes begin."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions (B, A) for what the environments show (B, O)."""


class _Vector(Protocol):
    """The part of `HostVectorEnv` that an evaluation needs."""

    def reset(self, episode: int = 0) -> np.ndarray: ...

    def step(self, actions: np.ndarray) -> Timestep[np.ndarray]: ...


class _JaxVector:
    """Pure-JAX environments stepped from the host, with the start states of a run's evaluation."""

    def __init__(self, env: JaxEnv, seed: int, episodes: int) -> None:
        self._keys, self._episodes = seed_keys([seed + SEED_OFFSET]), episodes
        self._reset, self._step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))

    def reset(self, episode: int = 0) -> np.ndarray:
        keys = episode_keys(self._keys, episode, self._episodes)[0]
        self._state, observation = self._reset(keys)
        return np.asarray(observation)

    def step(self, actions: np.ndarray) -> Timestep[np.ndarray]:
        self._state, timestep = self._step(self._state, actions)
        return jax.device_get(timestep)


def require_fitting(policy: FilePolicy, task: JaxEnv | HostTask) -> None:
    """Raises ValueError unless a policy takes what a task shows and gives what it takes."""
    seen, space = task.spec.observation, task.spec.action
    shown = seen.shape[-1] // seen.history if seen.shape else 0
    wanted, given = policy.description["observation"]["size"], policy.description["action"]["size"]
    if shown != wanted or len(seen.shape) != 1:
        raise ValueError(
            f"the policy takes {wanted} numbers, and {task.spec.task} shows {list(seen.shape)}"
        )
    if not isinstance(space, Continuous) or space.size != given:
        raise ValueError(f"the policy gives {given} numbers, and {task.spec.task} takes {space}")


def file_returns(
    policy: FilePolicy, task: JaxEnv | HostTask, seed: int, episodes: int, index: int
) -> np.ndarray:
    """Returns of whole episodes (episodes,), float64; NaN where the environment failed.

    Args:
        policy: it keeps time and frames itself: each step it is given the newest frame alone.
        task: without the time; see `require_fitting`.
        seed: start states are those of the evaluation of a run of this one seed.
        episodes: how many.
        index: which start states.

    Raises:
        EnvironmentFailedError: the environments cannot go on.
    """
    if isinstance(task, JaxEnv):
        return _round(policy, task, _JaxVector(task, seed, episodes), index)
    together = episodes_together(1, episodes)
    rounds = episodes // together
    with task.vector([(seed + SEED_OFFSET, number) for number in range(together)]) as env:
        played = [_round(policy, task, env, index * rounds + number) for number in range(rounds)]
    return np.concatenate(played)


def _round(policy: FilePolicy, task: JaxEnv | HostTask, env: _Vector, episode: int) -> np.ndarray:
    """One whole episode in every environment."""
    half, middle = range_of(policy.description["action"])
    observation = env.reset(episode=episode)
    policy.reset()
    returns, running = np.zeros(len(observation)), np.ones(len(observation), bool)
    while running.any():
        actions = (policy.act(task.spec.observation.newest(observation)) - middle) / half
        timestep = env.step(np.clip(actions, -1.0, 1.0))
        reward = np.where(timestep.lost, np.nan, timestep.reward)
        returns += np.where(running, reward, 0.0)
        running &= ~timestep.over
        observation = timestep.observation
    return returns
