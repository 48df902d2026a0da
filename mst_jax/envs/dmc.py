"""DeepMind Control Suite (state observations) as host environments.

Conventions of MR.Q (specs/mst-and-mrq.md §6.8): action repeat 2 with rewards summed; observation =
all fields in dm_control's own order, flattened and concatenated; no normalisation.
"""

import functools
import math
import os
from typing import Any

import numpy as np

# Rendering is never needed here, and its absence is reported at import; must precede the import.
os.environ.setdefault("MUJOCO_GL", "disabled")

from dm_control import suite
from dm_control.rl.control import Environment

from mst_jax.envs.base import HostTask, Spec
from mst_jax.envs.vector import WorkerVectorEnv

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
    repeat = ACTION_REPEAT if action_repeat is None else action_repeat
    factory = functools.partial(DmcEnv, name, repeat)
    spec = factory().spec
    return HostTask(spec, functools.partial(WorkerVectorEnv, spec, factory))


class DmcEnv:
    """One dm_control environment behind the `HostEnv` protocol.

    It takes dm_control's own steps, in its order, but builds observations only where one is
    returned. Every episode is bit-equal to that of a freshly loaded environment with its seed.

    Attributes:
      spec: sizes of the task.
    """

    def __init__(self, name: str, action_repeat: int) -> None:
        domain, task = name.split("-", maxsplit=1)
        # LQR draws its springs when loaded: a fixed seed makes it one problem for all.
        environment = suite.load(domain, task, task_kwargs={"random": 0})
        self._load(environment, f"dmc:{name}", action_repeat)

    def _load(self, environment: Environment, task: str, action_repeat: int) -> None:
        self._environment = environment
        self._physics, self._task = environment.physics, environment.task
        self._substeps, self._limit = environment._n_sub_steps, environment._step_limit
        self._repeat = action_repeat
        action = environment.action_spec()
        self._offset, self._scale = affine(action.minimum, action.maximum)
        self._written = model_fields_written_at_reset(environment)
        self._slots, size = slots(environment.reset().observation)
        length = (
            None if math.isinf(self._limit) else math.ceil(math.ceil(self._limit) / action_repeat)
        )
        self.spec = Spec(task, size, action.shape[0], length, action_repeat)
        self._steps = 0

    def reset(self, seed: np.random.SeedSequence) -> np.ndarray:
        """Starts the episode of `seed`; returns the first observation, [O] float32."""
        for field, pristine in self._written:
            np.copyto(field, pristine)
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
        total, ended, terminated = 0.0, False, False
        for _ in range(self._repeat):
            self._task.before_step(control, self._physics)
            self._physics.step(self._substeps)
            self._task.after_step(self._physics)
            total += self._task.get_reward(self._physics)
            self._steps += 1
            discount = (
                1.0 if self._steps >= self._limit else self._task.get_termination(self._physics)
            )
            ended = discount is not None
            if ended:
                terminated = discount == 0.0
                break
        observation = self._flatten(self._task.get_observation(self._physics))
        return observation, total, terminated, ended and not terminated

    def _flatten(self, observation: dict[str, Any]) -> np.ndarray:
        """Concatenates all fields; dm_control's float64 is rounded to float32 here, once."""
        flat = np.zeros(self.spec.observation_size, np.float32)
        for name, slot in self._slots:
            flat[slot] = np.ravel(observation[name])
        return flat


def affine(minimum: np.ndarray, maximum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale, float64 [A], that take [-1, 1] to [minimum, maximum].

    An actuator without limits (dm_control writes +-1e10) takes the action as it is.
    """
    limited = (maximum - minimum) < 1e9
    offset = np.where(limited, (maximum + minimum) / 2, 0.0)
    scale = np.where(limited, (maximum - minimum) / 2, 1.0)
    return offset, scale


def slots(observation: dict[str, Any]) -> tuple[list[tuple[str, slice]], int]:
    """Where each field of an observation goes in the flat vector, and the vector's length."""
    found, start = [], 0
    for name, value in observation.items():
        stop = start + np.size(value)
        found.append((name, slice(start, stop)))
        start = stop
    return found, start


def model_fields_written_at_reset(environment: Environment) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finds the arrays of the physics model that resetting an episode writes.

    Tasks that move their goal, gains or terrain write the model, and the next reset first runs
    the physics on what the previous episode left there, which warm-starts the solver: without
    putting the fields back, an episode would depend on the one before it.

    Args:
      environment: freshly loaded; left after a reset.

    Returns:
      (the model's own array, a copy of its contents before any reset) of each such field.
    """
    model = environment.physics.model
    names = [n for n in dir(model) if isinstance(getattr(model, n, None), np.ndarray)]
    fields = [getattr(model, n) for n in names]
    pristine = [field.copy() for field in fields]
    environment.reset()
    return [(f, p) for f, p in zip(fields, pristine, strict=True) if not np.array_equal(f, p)]
