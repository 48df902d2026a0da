"""Tasks whose episodes can be filmed: one environment in this process, and what it looks like."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import jax
import mujoco
import numpy as np

from mst_jax.envs.base import JaxEnv, Spec
from mst_jax.envs.film.camera import Camera
from mst_jax.envs.pictures import USUAL, Pictures
from mst_jax.envs.protocols import USUAL as USUAL_PROTOCOL
from mst_jax.envs.registry import make
from mst_jax.envs.spaces import Observation
from mst_jax.envs.timed import time_after

SEEN_SIDE = 240  # pixels that the longer side of a small picture is shown with, at least

if TYPE_CHECKING:  # optional packages
    from mst_jax.envs.suites.atari import AtariEnv
    from mst_jax.envs.suites.dmc import DmcEnv
    from mst_jax.envs.suites.dmc_pixels import DmcPixelsEnv
    from mst_jax.envs.suites.gym import GymEnv


class Stage(Protocol):
    """One environment and what it looks like.

    Attributes:
        spec: of the task.
        seconds: simulated time of one agent step.
    """

    spec: Spec
    seconds: float

    def reset(self, start: Any) -> np.ndarray:
        """Starts an episode: a seed sequence for host tasks, a key for pure-JAX ones."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Takes one agent step: observation [O], reward, whether the episode ended."""

    def picture(self) -> np.ndarray:
        """The current state, uint8 (H, W, 3); after an episode's end it may be the next one's."""

    def close(self) -> None:
        """Releases what draws."""


def open_stage(
    task: str,
    *,
    action_repeat: int | None = None,
    with_time: str = "off",
    picture_size: int = USUAL.size,
    quality: str = USUAL.quality,
    protocol: str = USUAL_PROTOCOL,
) -> Stage:
    """The stage of a task.

    EnvPool hides its physics: its tasks are shown by dm_control and Gymnasium, whose they are. Of
    other pure-JAX tasks there are the pictures that an agent sees, where it sees some.

    Args:
        task: a name that `make` knows.
        action_repeat: as `make` takes it, like the others.
        with_time: likewise.
        picture_size: of the pictures that the agent sees.
        quality: likewise.
        protocol: likewise.

    Raises:
        ValueError: if the task has no picture.
    """
    suite, _, name = task.partition(":")
    if suite not in _STAGES:
        env = make(task, action_repeat=action_repeat, with_time=with_time)
        if not (isinstance(env, JaxEnv) and _are_pictures(env.spec.observation)):
            raise ValueError(f"{task} has no picture; these suites have: {', '.join(_STAGES)}")
        return SeenStage(env)
    of_suite = {
        "atari": {"protocol": protocol},
        "dmc_pixels": {"pictures": Pictures(picture_size, quality)},
    }
    stage = _STAGES[suite](name, action_repeat, **of_suite.get(suite, {}))
    return stage if with_time == "off" else TimedStage(stage, with_time)


class Drawn(ABC):
    """What MuJoCo draws; the subclass says in which state it is.

    Attributes:
        model: what to draw.
    """

    model: mujoco.MjModel
    _camera: Camera | None = None

    @abstractmethod
    def data(self) -> mujoco.MjData:
        """The current state."""

    def picture(self) -> np.ndarray:
        """See `Stage`."""
        if self._camera is None:
            self._camera = Camera(self.model)
        return self._camera.picture(self.data())

    def close(self) -> None:
        """See `Stage`."""
        if self._camera is not None:
            self._camera.close()


class HostStage(Drawn):
    """A host environment whose MuJoCo model and state are at hand."""

    def __init__(
        self,
        env: "DmcEnv | DmcPixelsEnv | GymEnv",
        model: mujoco.MjModel,
        data: mujoco.MjData,
        seconds: float,
    ) -> None:
        """`seconds` are those of one control step; `model` and `data` are the environment's own."""
        self.spec, self.model = env.spec, model
        self.seconds = seconds * env.spec.action_repeat
        self._env, self._data = env, data

    def reset(self, start: np.random.SeedSequence) -> np.ndarray:
        """See `Stage`."""
        return self._env.reset(start)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """See `Stage`."""
        observation, reward, terminated, truncated = self._env.step(action)
        return observation, reward, terminated or truncated

    def data(self) -> mujoco.MjData:
        """The current state."""
        return self._data


class _Played:
    """A pure-JAX environment that is played."""

    def __init__(self, env: JaxEnv) -> None:
        """Compiles the environment when it is first used."""
        self.spec = env.spec
        self._reset, self._step = jax.jit(env.reset), jax.jit(env.step)

    def reset(self, start: Any) -> np.ndarray:
        """See `Stage`."""
        self._state, observation = self._reset(start)
        self._observation = np.asarray(observation)
        return self._observation

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """See `Stage`."""
        self._state, timestep = self._step(self._state, action)
        self._observation = np.asarray(timestep.observation)
        return self._observation, float(timestep.reward), bool(timestep.over)


class SeenStage(_Played):
    """A pure-JAX environment as its agent sees it: the newest picture, larger."""

    seconds = 0.2  # such a task has no time of its own

    def picture(self) -> np.ndarray:
        """See `Stage`: in colours where there are three channels, else their mean in grey."""
        newest = self.spec.observation.newest(self._observation)
        if newest.shape[-1] != 3:
            newest = newest.mean(axis=-1, keepdims=True).round().astype(np.uint8)
        times = 2 * -(-SEEN_SIDE // (2 * max(newest.shape[:2])))  # even, as films in colours are
        return np.broadcast_to(newest, (*newest.shape[:2], 3)).repeat(times, 0).repeat(times, 1)

    def close(self) -> None:
        """Nothing draws."""


class JaxStage(_Played, Drawn):
    """A pure-JAX environment whose positions are put into a MuJoCo model of the same bodies."""

    def __init__(
        self,
        env: JaxEnv,
        model: mujoco.MjModel,
        seconds: float,
        pose: Callable[[Any], dict[str, Any]],
    ) -> None:
        """Compiles the environment.

        Args:
            env: the environment.
            model: its bodies.
            seconds: of one control step.
            pose: what of a world to put into which fields of `MjData`.
        """
        super().__init__(env)
        self.model = model
        self.seconds = seconds * env.spec.action_repeat
        self._pose = pose
        self._data = mujoco.MjData(self.model)

    def data(self) -> mujoco.MjData:
        """The current state."""
        for field, value in self._pose(self._state.world).items():
            getattr(self._data, field)[:] = value
        mujoco.mj_forward(self.model, self._data)
        return self._data


class TimedStage:
    """A stage with the episode's time behind its observations."""

    def __init__(self, stage: Stage, time: str) -> None:
        """`time` is as `with_time` takes it, and not `off`."""
        self.spec, self.seconds = stage.spec, stage.seconds
        self._stage, self._time, self._steps = stage, time, 0

    def reset(self, start: Any) -> np.ndarray:
        """See `Stage`."""
        self._steps = 0
        return self._timed(self._stage.reset(start))

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """See `Stage`; the observation after the last step is not one to act on."""
        observation, reward, ended = self._stage.step(action)
        self._steps += 1
        return self._timed(observation), reward, ended

    def picture(self) -> np.ndarray:
        """See `Stage`."""
        return self._stage.picture()

    def close(self) -> None:
        """See `Stage`."""
        self._stage.close()

    def _timed(self, observation: np.ndarray) -> np.ndarray:
        now = time_after(np.asarray(self._steps), self.spec.episode_length, self._time)
        return np.append(observation, np.float32(now))


class AtariStage:
    """A game as the emulator shows it."""

    def __init__(self, env: "AtariEnv", seconds: float) -> None:
        """`seconds` are those of one frame."""
        self.spec, self.seconds = env.spec, seconds * env.spec.action_repeat
        self._env = env

    def reset(self, start: np.random.SeedSequence) -> np.ndarray:
        """See `Stage`."""
        return self._env.reset(start)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """See `Stage`; after a lost life the history begins anew, and the film goes on."""
        observation, reward, terminated, _, over = self._env.step(action)
        fresh = self.spec.observation.fresh
        return fresh(observation) if terminated else observation, reward, over

    def picture(self) -> np.ndarray:
        """See `Stage`: each of the emulator's pixels is four."""
        return self._env.screen().repeat(2, axis=0).repeat(2, axis=1)

    def close(self) -> None:
        """Nothing draws but the emulator."""


def _are_pictures(shown: Observation) -> bool:
    return shown.dtype == "uint8" and len(shown.shape) == 3


def _atari(name: str, repeat: int | None, protocol: str = USUAL_PROTOCOL) -> Stage:
    atari = import_module("mst_jax.envs.suites.atari")
    return AtariStage(atari.load(name, repeat, protocol), 1 / atari.FRAMES_A_SECOND)


def _dmc(name: str, repeat: int | None) -> Stage:
    dmc = import_module("mst_jax.envs.suites.dmc")
    env = dmc.load(name, repeat or dmc.ACTION_REPEAT)
    return HostStage(env, *env.scene())


def _dmc_pixels(name: str, repeat: int | None, pictures: Pictures = USUAL) -> Stage:
    suite = import_module("mst_jax.envs.suites.dmc_pixels")
    env = suite.load(name, repeat or suite.ACTION_REPEAT, pictures)
    return HostStage(env, *env.scene())


def _gym(name: str, repeat: int | None) -> Stage:
    env = import_module("mst_jax.envs.suites.gym").GymEnv(name, repeat or 1)
    return HostStage(env, *env.scene())


def _envpool(name: str, repeat: int | None) -> Stage:
    gym_tasks = import_module("mst_jax.envs.suites.envpool").gym_tasks()
    return _gym(name, repeat) if name in gym_tasks else _dmc(name, repeat)


def _brax(name: str, repeat: int | None) -> Stage:
    brax = import_module("mst_jax.envs.suites.brax")
    own = brax.load(name)
    pose = lambda world: {"qpos": world.pipeline_state.q}  # noqa: E731
    return JaxStage(brax.make(name, repeat), own.sys.mj_model, float(own.dt), pose)


def _playground(name: str, repeat: int | None) -> Stage:
    playground = import_module("mst_jax.envs.suites.playground")
    own = playground.load(name)
    pose = lambda world: {"qpos": world.data.qpos, "mocap_pos": world.data.mocap_pos}  # noqa: E731
    return JaxStage(playground.make(name, repeat), own.mj_model, float(own.dt), pose)


_STAGES: dict[str, Callable[..., Stage]] = {
    "atari": _atari,
    "brax": _brax,
    "dmc": _dmc,
    "dmc_pixels": _dmc_pixels,
    "envpool": _envpool,
    "gym": _gym,
    "playground": _playground,
}
