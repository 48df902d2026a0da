"""DeepMind Control Suite from pixels, as DrQ-v2 has it.

Observations are the last three pictures, uint8 (size, size, 9), oldest first; before an episode's
first stands that one. One picture is drawn for each agent step, after the action repeat, with
dm_control's first camera (the quadruped's third). Steps, rewards and ends are those of suite `dmc`.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from mst_jax.envs.base import HostTask
from mst_jax.envs.film import opengl
from mst_jax.envs.host.task import host_task
from mst_jax.envs.pictures import USUAL, Pictures
from mst_jax.envs.spaces import Observation
from mst_jax.envs.suites import dmc

if TYPE_CHECKING:  # importing MuJoCo fails if MUJOCO_GL names what is not there; `dmc` says so
    import mujoco

    from mst_jax.envs.film.camera import Camera

FRAMES = 3
CAMERAS = {"quadruped": 2}  # the nearest; of all others the first

ACTION_REPEAT = dmc.ACTION_REPEAT
tasks = dmc.tasks

# One for all environments of a process: they are drawn in turn, and each would take tens of MB.
_cameras: dict[tuple[str, Pictures], Camera] = {}


def make(name: str, action_repeat: int | None = None, pictures: Pictures = USUAL) -> HostTask:
    """Makes a task of the suite; nothing is drawn yet.

    Args:
        name: one of `tasks()`.
        action_repeat: dm_control steps per agent step; None means 2.
        pictures: what they look like.

    Raises:
        ValueError: if there are no such pictures.
    """
    pictures.check()
    factory = functools.partial(load, name, action_repeat or ACTION_REPEAT, pictures)
    return host_task(factory().spec, factory, opengl.require_renderer)


def load(name: str, action_repeat: int, pictures: Pictures) -> DmcPixelsEnv:
    """Loads one environment of the suite; see `make`."""
    return DmcPixelsEnv(dmc.load(name, action_repeat), name, pictures)


class DmcPixelsEnv:
    """A `DmcEnv` that shows pictures, behind the `HostEnv` protocol.

    Attributes:
        spec: sizes of the task.
    """

    def __init__(self, env: dmc.DmcEnv, name: str, pictures: Pictures) -> None:
        """Wraps an environment, which nobody else may use from now on."""
        shape = (pictures.size, pictures.size, 3 * FRAMES)
        observation = Observation(shape, "uint8", history=FRAMES, fill="repeat")
        self.spec = env.spec._replace(task=f"dmc_pixels:{name}", observation=observation)
        self._env, self._name, self._pictures = env, name, pictures
        self._frames: deque[np.ndarray] = deque(maxlen=FRAMES)

    def reset(self, seed: np.random.SeedSequence) -> np.ndarray:
        """Starts the episode of `seed`; returns its first picture three times."""
        self._env.reset(seed)
        self._frames.extend([self._draw()] * FRAMES)
        return self._stack()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """As `DmcEnv.step`, with pictures: uint8 (size, size, 9)."""
        rest = self._advance(action)
        self._frames.append(self._draw())
        return self._stack(), *rest

    def skip(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """As `step`, but nothing is drawn: what it shows is out of date."""
        return self._stack(), *self._advance(action)

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """A step less its picture, which would not show that the physics diverged."""
        state, reward, terminated, truncated = self._env.step(action)
        if not np.isfinite(state).all():
            raise FloatingPointError("the state is not finite")
        return reward, terminated, truncated

    def scene(self) -> tuple[mujoco.MjModel, mujoco.MjData, float]:
        """As `DmcEnv.scene`."""
        return self._env.scene()

    def _stack(self) -> np.ndarray:
        return np.concatenate(self._frames, axis=-1)

    def _draw(self) -> np.ndarray:
        """The state's picture, uint8 (size, size, 3)."""
        from mst_jax.envs.film.camera import Camera

        model, data, _ = self.scene()
        camera = _cameras.get((self._name, self._pictures))
        if camera is None:
            camera = _cameras[self._name, self._pictures] = Camera(
                *(model, self._pictures.size, self._pictures.size),
                number=CAMERAS.get(self._name.partition("-")[0], 0),
                quality=self._pictures.quality,
            )
        return camera.picture(data, model)
