"""The episode's time as an input: an option of any task that has a time limit.

One more entry of the observation, which normalisers leave alone: -1/2 at the start of an episode
and 1/2 at its limit. Agents that must tell a time limit from an end need it.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mst_jax.envs.base import HostTask, HostVectorEnv, JaxEnv, Spec, Timestep
from mst_jax.envs.spaces import Observation

if TYPE_CHECKING:
    import jax

TIMES = ("off", "exact", "published")


def with_time(task: JaxEnv | HostTask, time: str = "exact") -> JaxEnv | HostTask:
    """The task with the episode's time behind its observations.

    Args:
        task: flat observations of float32, and a time limit.
        time: `exact`: after k of T steps it is k/T - 1/2. `published`: as in the reference program
            of Stream AC, where it lags: -1/2 after no step and after one, (k-1)/T - 1/2 after k.

    Returns:
        The task, or itself for `off`.

    Raises:
        ValueError: there is no such option, no time limit, or the task shows pictures.
    """
    if time not in TIMES:
        raise ValueError(f"with_time={time!r} is none of {', '.join(TIMES)}")
    if time == "off":
        return task
    spec = _timed_spec(task.spec)
    if isinstance(task, JaxEnv):
        return _jax(task, spec, time)
    vector = task.vector
    timed = lambda *args, **kwargs: _TimedVector(vector(*args, **kwargs), spec, time)  # noqa: E731
    return task._replace(spec=spec, vector=timed)


def time_after(steps: Any, limit: int | None, time: str) -> Any:
    """The time after [...] steps of `limit`, which a task `with_time` always has; see there."""
    if limit is None:
        raise ValueError("there is no time without a time limit")
    return (steps - (time == "published")).clip(0) / limit - 0.5


def _timed_spec(spec: Spec) -> Spec:
    if spec.episode_length is None:
        raise ValueError(f"with_time needs a time limit, and {spec.task} has none: leave it off")
    if not (isinstance(spec.observation, Observation) and spec.observation.is_vector):
        raise ValueError(
            f"with_time appends a number to flat observations, and {spec.task} shows others: "
            "leave it off"
        )
    (size,) = spec.observation.shape
    unscaled = spec.observation.unscaled + 1
    return spec._replace(
        observation=spec.observation._replace(shape=(size + 1,), unscaled=unscaled)
    )


class TimedState(NamedTuple):
    """State of a pure-JAX environment with its time.

    Attributes:
        inner: the environment's own.
        steps: int32, agent steps taken in the episode.
    """

    inner: Any
    steps: "jax.Array"

    @property
    def errors(self) -> "jax.Array":
        """int32, steps lost so far."""
        return self.inner.errors


def _jax(env: JaxEnv, spec: Spec, time: str) -> JaxEnv:
    import jax.numpy as jnp

    def timed(observation: "jax.Array", steps: "jax.Array") -> "jax.Array":
        now = time_after(steps, spec.episode_length, time)
        return jnp.append(observation, jnp.asarray(now, jnp.float32))

    def reset(key: "jax.Array") -> tuple[TimedState, "jax.Array"]:
        state, observation = env.reset(key)
        zero = jnp.zeros((), jnp.int32)
        return TimedState(state, zero), timed(observation, zero)

    def step(state: TimedState, action: "jax.Array") -> tuple[TimedState, Timestep]:
        inner, timestep = env.step(state.inner, action)
        reached = state.steps + 1
        steps = jnp.where(timestep.over, 0, reached)
        timestep = timestep._replace(
            observation=timed(timestep.observation, steps),
            next_observation=timed(timestep.next_observation, reached),
        )
        return TimedState(inner, steps), timestep

    return JaxEnv(spec, reset, step)


class _TimedVector:
    """A vector of host environments with their times; see `HostVectorEnv`."""

    def __init__(self, env: HostVectorEnv, spec: Spec, time: str) -> None:
        self.spec = spec
        self._env, self._time = env, time
        self._steps = np.zeros(0, np.int64)

    @property
    def errors(self) -> np.ndarray:
        """[E] int64, steps that each environment has lost so far."""
        return self._env.errors

    @property
    def restarts(self) -> int:
        """How often a worker process had to be started again."""
        return self._env.restarts

    def reset(self, episode: int = 0) -> np.ndarray:
        """Starts an episode everywhere; the observations, [E, O]."""
        observation = self._env.reset(episode)
        self._steps = np.zeros(len(observation), np.int64)
        return self._timed(observation, self._steps)

    def step(self, actions: np.ndarray) -> Timestep:
        """Takes one agent step everywhere."""
        timestep = self._env.step(actions)
        reached = self._steps + 1
        self._steps = np.where(timestep.over, 0, reached)
        return timestep._replace(
            observation=self._timed(timestep.observation, self._steps),
            next_observation=self._timed(timestep.next_observation, reached),
        )

    def snapshot(self) -> dict[str, np.ndarray]:
        """What `restore` needs; the times are the lengths that environments note anyway."""
        return {**self._env.snapshot(), "time": self._steps.copy()}

    def restore(self, snapshot: dict[str, np.ndarray]) -> np.ndarray:
        """Continues from a snapshot; the observations, [E, O].

        Raises:
            ValueError: the snapshot is of other environments, or of some without a time.
        """
        if "time" not in snapshot:
            raise ValueError("the snapshot was taken of environments without a time")
        own = {name: value for name, value in snapshot.items() if name != "time"}
        observation = self._env.restore(own)
        self._steps = np.array(snapshot["time"], np.int64)
        return self._timed(observation, self._steps)

    def close(self) -> None:
        """Releases everything; may be called again."""
        self._env.close()

    def __enter__(self) -> "_TimedVector":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def _timed(self, observation: np.ndarray, steps: np.ndarray) -> np.ndarray:
        now = time_after(steps, self.spec.episode_length, self._time)
        return np.concatenate([observation, now[:, None].astype(np.float32)], axis=1)
