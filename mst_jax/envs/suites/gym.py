"""Gymnasium's tasks with continuous actions, its own and those that users register."""

from __future__ import annotations

import functools
import math
from importlib import import_module
from typing import TYPE_CHECKING

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from mst_jax.envs.base import HostTask, vector_spec
from mst_jax.envs.host.actions import affine, continuous
from mst_jax.envs.host.task import host_task
from mst_jax.envs.quiet import quiet

if TYPE_CHECKING:
    import mujoco

VERSIONS = (4, 5)  # v5 is Gymnasium's own advice; results of before 2024 are of v4
UNMADE = ("Pusher-v4",)  # needs MuJoCo 2
CLASSIC = ["MountainCarContinuous-v0", "Pendulum-v1"]  # the others have discrete actions
OWN_TASKS = "gym:MODULE:ID imports the module that registers a task of yours"


def tasks() -> list[str]:
    """Lists Gymnasium's own identifiers of the tasks that `mst_jax[gym]` can make."""
    mujoco = [
        name
        for name, spec in gymnasium.registry.items()
        if str(spec.entry_point).startswith("gymnasium.envs.mujoco.") and spec.version in VERSIONS
    ]
    return sorted({*mujoco, *CLASSIC} - {*UNMADE})


def accepts(name: str) -> bool:
    """Whether a name is worth a try although it is not listed: `ID` or `MODULE:ID`."""
    return ":" in name or name in gymnasium.registry


def make(name: str, action_repeat: int | None = None) -> HostTask:
    """Makes a registered task.

    Args:
        name: Gymnasium's identifier `ID`, or `MODULE:ID` to import a module that registers it.
        action_repeat: environment steps per agent step; None means 1.

    Raises:
        ValueError: if it cannot be made, its actions are not continuous, its observations not a
            vector of numbers, or it has no time limit.
    """
    registered = _registered(name)
    try:
        first = GymEnv(registered, action_repeat or 1)
    except ValueError:
        raise
    except Exception as error:  # whatever the environment's own code may raise
        text = (str(error).splitlines() or [""])[0]
        raise ValueError(f"gym:{name} cannot be made: {type(error).__name__}: {text}") from error
    spec = first.spec._replace(task=f"gym:{name}")
    factory = functools.partial(GymEnv, registered, action_repeat or 1)
    return host_task(spec, factory)


class GymEnv:
    """One Gymnasium environment behind the `HostEnv` protocol.

    Attributes:
        spec: sizes of the task.
    """

    def __init__(self, registered: str | EnvSpec, action_repeat: int) -> None:
        """Makes it.

        Args:
            registered: identifier, or what is registered under it; only the latter can be made in
                another process, if the user has registered it.
            action_repeat: environment steps per agent step.

        Raises:
            ValueError: see `make`.
        """
        with quiet():
            environment = gymnasium.make(registered, disable_env_checker=True)
        task = f"gym:{environment.spec.id}"
        space = environment.action_space
        _check_actions(task, space)
        self._environment = _with_vectors(task, environment)
        self._repeat = action_repeat
        self._offset, self._scale = affine(space.low, space.high)
        (size,) = self._environment.observation_space.shape
        steps = environment.spec.max_episode_steps
        if steps is None:
            raise ValueError(
                f"{task} has no time limit, and evaluations play whole episodes: register it with "
                "max_episode_steps"
            )
        length = math.ceil(steps / action_repeat)
        actions = continuous(self._offset, self._scale)
        spec = vector_spec(task, size, actions.size, length, action_repeat)
        self.spec = spec._replace(action=actions)

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
            ValueError: if it is not made of MuJoCo.
        """
        own = self._environment.unwrapped
        if not hasattr(own, "model"):
            raise ValueError(f"{self.spec.task} has no picture: it is not made of MuJoCo")
        return own.model, own.data, own.dt


def _registered(name: str) -> EnvSpec:
    """What is registered under `ID` or `MODULE:ID`; ValueError if there is nothing."""
    module, _, identifier = name.rpartition(":")
    try:
        if module:
            import_module(module)
        return gymnasium.spec(identifier)
    except gymnasium.error.Error as error:
        raise ValueError(f"unknown task 'gym:{name}': {str(error).splitlines()[0]}") from error
    except Exception as error:  # whatever the module's own code may raise
        raise ValueError(
            f"gym:{name}: importing {module!r}, which is to register {identifier!r}, failed: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_actions(task: str, space: gymnasium.Space) -> None:
    """Raises ValueError unless actions are a vector of real numbers."""
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        raise ValueError(
            f"{task}: its actions are discrete; this suite takes continuous ones (a Box)"
        )
    real = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    if not real or len(space.shape) != 1:
        raise ValueError(f"{task}: its actions are {space}; this suite takes a Box of one axis")


def _with_vectors(task: str, environment: gymnasium.Env) -> gymnasium.Env:
    """The environment with observations flattened to one vector if they are something else.

    Raises:
        ValueError: if they are pictures, or cannot be flattened.
    """
    space = environment.observation_space
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return environment
    if _has_pictures(space):
        raise ValueError(f"{task}: its observations hold pictures; this suite takes a vector")
    if not space.is_np_flattenable:
        raise ValueError(f"{task}: its observations, {space}, cannot be flattened to a vector")
    return gymnasium.wrappers.FlattenObservation(environment)


def _has_pictures(space: gymnasium.Space) -> bool:
    if isinstance(space, spaces.Dict):
        return any(map(_has_pictures, space.values()))
    if isinstance(space, spaces.Tuple):
        return any(map(_has_pictures, space))
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) > 1
