"""Gymnasium's MuJoCo tasks (v5) and classic continuous control as host environments."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import gymnasium
import numpy as np

from mst_jax.envs.actions import affine
from mst_jax.envs.base import HostTask, Spec
from mst_jax.envs.quiet import quiet
from mst_jax.envs.vector import WorkerVectorEnv

if TYPE_CHECKING:
    import mujoco

CLASSIC = ["MountainCarContinuous-v0", "Pendulum-v1"]  # the others have discrete actions


def tasks() -> list[str]:
    """Lists Gymnasium's own identifiers of the tasks that `mst_jax[gym]` can make."""
    mujoco = [
        name
        for name, spec in gymnasium.registry.items()
        if str(spec.entry_point).startswith("gymnasium.envs.mujoco.") and spec.version == 5
    ]
    return sorted([*mujoco, *CLASSIC])


def make(name: str, action_repeat: int | None = None) -> HostTask:
    """Makes one of `tasks()`.

    Args:
      name: Gymnasium's identifier.
      action_repeat: environment steps per agent step; None means 1.
    """
    factory = functools.partial(GymEnv, name, action_repeat or 1)
    spec = factory().spec
    return HostTask(spec, functools.partial(WorkerVectorEnv, spec, factory))


class GymEnv:
    """One Gymnasium environment behind the `HostEnv` protocol.

    Attributes:
      spec: sizes of the task.
    """

    def __init__(self, name: str, action_repeat: int) -> None:
        """Makes it; arguments as in `make`."""
        with quiet():
            self._environment = gymnasium.make(name, disable_env_checker=True)
        self._repeat = action_repeat
        space = self._environment.action_space
        self._offset, self._scale = affine(space.low, space.high)
        (size,) = self._environment.observation_space.shape
        length = math.ceil(self._environment.spec.max_episode_steps / action_repeat)
        self.spec = Spec(f"gym:{name}", size, space.shape[0], length, action_repeat)

    def reset(self, seed: np.random.SeedSequence) -> np.ndarray:
        """Starts the episode of `seed`; returns the first observation, [O] float32."""
        number = int.from_bytes(seed.generate_state(4).tobytes(), "little")
        observation, _ = self._environment.reset(seed=number)
        return np.array(observation, np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Repeats one action; stops early at the end of the episode.

        Args:
          action: [A] float32 in [-1, 1].

        Returns:
          observation [O] float32, summed reward, terminated, truncated (never both).
        """
        own, total = self._offset + self._scale * action, 0.0
        for _ in range(self._repeat):
            observation, reward, terminated, truncated, _ = self._environment.step(own)
            total += float(reward)
            if terminated or truncated:
                break
        return np.array(observation, np.float32), total, terminated, truncated and not terminated

    def scene(self) -> tuple[mujoco.MjModel, mujoco.MjData, float]:
        """MuJoCo's model and state, both live, and the seconds of a control step.

        Raises:
          ValueError: if it is one of the classic tasks.
        """
        own = self._environment.unwrapped
        if not hasattr(own, "model"):
            raise ValueError(f"{self.spec.task} has no picture: it is not made of MuJoCo")
        return own.model, own.data, own.dt
