"""DeepMind Control Suite (state observations) as host environments.

Conventions of MR.Q (docs/specs/mst-and-mrq.md §6.8): action repeat 2 with rewards summed;
observation = all fields in dm_control's own order, flattened and concatenated; no normalisation.
"""

import contextlib
import functools
import math
import os
from collections.abc import Iterator, Mapping

import numpy as np
from absl import logging

from mst_jax.envs.film import opengl

# Must precede the import: looking for a display would print warnings, and states need none. One
# that is named and not there would end in a traceback, and dm_control knows small letters only.
os.environ["MUJOCO_GL"] = opengl.named() or os.environ.get("MUJOCO_GL", "disabled").strip().lower()

import mujoco
from dm_control import _render, suite
from dm_control.rl.control import Environment, Task

from mst_jax.envs.base import HostTask, vector_spec
from mst_jax.envs.host.actions import affine, continuous
from mst_jax.envs.host.task import host_task

ACTION_REPEAT = 2


def tasks() -> list[str]:
    """Lists `"<domain>-<task>"` for the whole suite."""
    return [f"{domain}-{task}" for domain, task in suite.ALL_TASKS]


def make(name: str, action_repeat: int | None = None) -> HostTask:
    """Makes a task of the suite.

    Args:
        name: one of `tasks()`.
        action_repeat: dm_control steps per agent step; None means 2.
    """
    factory = functools.partial(load, name, action_repeat or ACTION_REPEAT)
    spec = factory().spec
    return host_task(spec, factory)


def load(name: str, action_repeat: int) -> "DmcEnv":
    """Loads one environment of the suite (0.05 to 1 s); see `make`."""
    domain, task = name.split("-", maxsplit=1)
    with _quiet():
        # LQR draws its springs when it is loaded: a fixed seed makes it one problem for all.
        environment = suite.load(domain, task, task_kwargs={"random": 0})
    if _render.BACKEND in _render.constants.NO_RENDERER:
        _forbid_rendering(environment)
    return DmcEnv(environment, f"dmc:{name}", action_repeat)


class DmcEnv:
    """One dm_control environment behind the `HostEnv` protocol.

    It takes the steps of dm_control's own `Environment.step`, in the same order, but skips the
    observations that an action repeat would throw away. Every episode is bit-equal to the one
    that a freshly loaded environment gives with its seed: the seed goes into the task's random
    state before each reset, and a reset writes anew all that an episode changes.

    Attributes:
        spec: sizes of the task.
        fields: where each field of an observation goes in the flat vector, see `slots`.
    """

    def __init__(self, environment: Environment, task: str, action_repeat: int) -> None:
        """Wraps `environment`, which nobody else may use from now on.

        Args:
            environment: as loaded by dm_control.
            task: full task name.
            action_repeat: dm_control steps per agent step.
        """
        self._environment = environment
        self._physics, self._task = environment.physics, environment.task
        self._substeps, self._limit = environment._n_sub_steps, environment._step_limit
        self._repeat, self._steps = action_repeat, 0
        action = environment.action_spec()
        self._offset, self._scale = affine(action.minimum, action.maximum)
        self.fields, size = slots(environment.reset().observation)
        steps = None if math.isinf(self._limit) else math.ceil(self._limit)
        length = steps and math.ceil(steps / action_repeat)
        actions = continuous(self._offset, self._scale)
        spec = vector_spec(task, size, actions.size, length, action_repeat)
        terminates = type(self._task).get_termination is not Task.get_termination
        self.spec = spec._replace(action=actions, ends_early=terminates)

    def reset(self, seed: np.random.SeedSequence) -> np.ndarray:
        """Starts the episode of `seed`; returns the first observation, [O] float32."""
        self._task.random.seed(seed.generate_state(8))
        self._steps = 0
        return self._flatten(self._environment.reset().observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Repeats one action; stops early at the end of the episode.

        Args:
            action: [A] float32 in [-1, 1].

        Returns:
            observation [O] float32, summed reward, terminated (dm_control's last discount is 0),
            truncated (any other end).
        """
        control = self._offset + self._scale * action
        total, discount = 0.0, None
        for _ in range(self._repeat):
            self._task.before_step(control, self._physics)
            self._physics.step(self._substeps)
            self._task.after_step(self._physics)
            total += self._task.get_reward(self._physics)
            self._steps += 1
            timeout = self._steps >= self._limit
            discount = 1.0 if timeout else self._task.get_termination(self._physics)
            if discount is not None:
                break
        observation = self._flatten(self._task.get_observation(self._physics))
        terminated = discount == 0.0
        return observation, total, terminated, discount is not None and not terminated

    def scene(self) -> tuple[mujoco.MjModel, mujoco.MjData, float]:
        """MuJoCo's model and state, both live, and the seconds of a control step."""
        physics = self._physics
        return physics.model.ptr, physics.data.ptr, self._environment.control_timestep()

    def _flatten(self, observation: Mapping[str, np.ndarray | float]) -> np.ndarray:
        """Concatenates all fields; dm_control's float64 is rounded to float32 here, once."""
        flat = np.zeros(self.spec.observation.size, np.float32)
        for name, slot in self.fields:
            flat[slot] = np.ravel(observation[name])
        return flat


def slots(
    observation: Mapping[str, np.ndarray | float],
) -> tuple[list[tuple[str, slice]], int]:
    """Where each field of an observation goes in the flat vector, and the vector's length."""
    found, start = [], 0
    for name, value in observation.items():
        stop = start + np.size(value)
        found.append((name, slice(start, stop)))
        start = stop
    return found, start


def _forbid_rendering(environment: Environment) -> None:
    """Makes `physics.contexts` None, where asking for it would create a renderer and fail.

    quadruped-escape asks at every reset, to upload its new terrain if there is a renderer.
    """
    physics = environment.physics
    physics.__class__ = type("Physics", (type(physics),), {"contexts": None})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences absl's warnings: dm_control's own models use attributes that MuJoCo deprecates."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
