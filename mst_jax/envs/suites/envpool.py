"""EnvPool's C++ versions of the DeepMind Control Suite and of Gymnasium's MuJoCo tasks.

EnvPool is a vector environment by itself (threads in C++), so no worker processes are needed. Its
observations hold fields that dm_control's do not: dm_control's are selected, in dm_control's order.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import envpool
import numpy as np

from mst_jax.envs.base import (
    WORKER_TIMEOUT,
    HostTask,
    Spec,
    Timestep,
    check_episode,
    check_seeds,
    episode_seed,
    vector_spec,
    worker_count,
)
from mst_jax.envs.host.actions import affine, continuous
from mst_jax.envs.host.episode_log import EpisodeLog
from mst_jax.envs.host.notices import Notices
from mst_jax.envs.suites import dmc

GYM = (
    *("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum"),
    *("InvertedPendulum", "Pusher", "Reacher", "Swimmer", "Walker2d"),
)
# Gymnasium shows the forces of contacts in them; EnvPool leaves them zero unless it is told to.
GYM_OPTIONS = {name: {"post_constraint": True} for name in ("Humanoid-v4", "HumanoidStandup-v4")}


class Source(NamedTuple):
    """What of EnvPool a task is made of.

    Attributes:
        name: EnvPool's identifier.
        fields: of an observation, in the order in which they are concatenated.
        limit: control steps after which an episode is cut here; infinite where EnvPool cuts it.
        options: of `envpool.make`.
    """

    name: str
    fields: tuple[str, ...]
    limit: float = math.inf
    options: Mapping[str, Any] = {}


def tasks() -> list[str]:
    """Lists dm_control's tasks in its spelling, without LQR, and Gymnasium's MuJoCo v4 and v5.

    EnvPool cuts LQR's episodes after 1000 steps; dm_control has no limit there. Pusher-v4 is left
    out as in the gym suite, whose Gymnasium cannot make it.
    """
    return [*(name for name in dmc.tasks() if not name.startswith("lqr-")), *gym_tasks()]


def make(name: str, action_repeat: int | None = None) -> HostTask:
    """Makes one of `tasks()`.

    Args:
        name: as dm_control or Gymnasium spell it, such as `dog-run` or `Walker2d-v4`.
        action_repeat: control steps per agent step; None means 2 for dm_control's tasks and 1 for
            Gymnasium's.
    """
    made = _of_gym(name, action_repeat) if name in gym_tasks() else _of_dmc(name, action_repeat)
    return HostTask(made[0], functools.partial(EnvpoolVectorEnv, *made))


def identifier(name: str) -> str:
    """EnvPool's name of a task: `ball_in_cup-catch` is `BallInCupCatch-v1`."""
    parts = name.replace("-", "_").split("_")
    return "".join(part[:1].upper() + part[1:] for part in parts) + "-v1"


def gym_tasks() -> list[str]:
    """Those of `tasks()` that are Gymnasium's."""
    names = (f"{name}-v{version}" for name in GYM for version in (4, 5))
    return [name for name in names if name != "Pusher-v4"]


def _of_dmc(name: str, action_repeat: int | None) -> tuple[Spec, Source]:
    original = dmc.load(name, action_repeat or dmc.ACTION_REPEAT)
    fields = tuple(field for field, _ in original.fields)
    return original.spec._replace(task=f"envpool:{name}"), Source(identifier(name), fields)


def _of_gym(name: str, action_repeat: int | None) -> tuple[Spec, Source]:
    """EnvPool calls a terminal state at its time limit truncated: its limit is put off by one."""
    repeat = action_repeat or 1
    own = envpool.make_spec(name)
    limit = own.config.max_episode_steps
    (size,), action = own.observation_spec().obs.shape, own.action_spec()
    bounds = (np.broadcast_to(bound, action.shape) for bound in (action.minimum, action.maximum))
    actions = continuous(*affine(*bounds))
    length = math.ceil(limit / repeat)
    spec = vector_spec(f"envpool:{name}", size, actions.size, length, repeat)
    options = {"max_episode_steps": limit + 1, **GYM_OPTIONS.get(name, {})}
    return spec._replace(action=actions), Source(name, ("obs",), limit, options)


class EnvpoolVectorEnv:
    """E environments in one pool of C++ threads, behind the `HostVectorEnv` protocol.

    A pool cannot be seeded again, and an environment draws its start states from a generator of
    its own, one after the other. So `reset(episode=k)` makes a new pool, seeded by (seed, index,
    k), and restoring makes that pool again, draws the start states up to the current episode's
    (a reset takes less than a millisecond) and replays that episode's actions. The same is done
    when an environment has failed: the others continue bit for bit.

    Attributes:
        spec: sizes of the task.
        seeds: [E, 2] int64, the (seed, environment index) of each environment.
    """

    def __init__(
        self,
        spec: Spec,
        source: Source,
        seeds: Sequence[tuple[int, int]],
        workers: int | None = None,
        timeout: float = WORKER_TIMEOUT,
        label: str | None = None,
    ) -> None:
        """Checks the arguments; the pool is made by `reset` or `restore`.

        Args:
            spec: sizes of the task.
            source: what of EnvPool it is made of.
            seeds: a (seed, environment index) pair for each environment.
            workers: number of threads; by default one per core, at most one per environment.
            timeout: of no meaning here, where there are no worker processes.
            label: what to call the environments in messages; the task's name by default.

        Raises:
            ValueError: if the seeds or the number of workers make no sense.
        """
        self.spec = spec
        self.seeds = check_seeds(seeds)
        self._log = EpisodeLog(spec, self.seeds)
        self._notices = Notices(label or spec.task)
        self._threads = worker_count(workers, len(self.seeds))
        self._source = source
        action = envpool.make_spec(source.name).action_spec()
        self._offset, self._scale = affine(action.minimum, action.maximum)
        self._first = 0  # the number of the episode that the pool was seeded for
        self._pool: Any = None
        self._closed = False

    @property
    def errors(self) -> np.ndarray:
        """[E] int64, steps that each environment has lost so far."""
        return self._log.errors

    @property
    def restarts(self) -> int:
        """Worker processes started again: there are none."""
        return 0

    def reset(self, episode: int = 0) -> np.ndarray:
        """Starts episode number `episode` in every environment.

        Returns:
            The first observations, [E, O] float32; zeros where the episode could not be started.

        Raises:
            ValueError: if `episode` is not in [0, 2**32).
            RuntimeError: if the environments are closed.
        """
        check_episode(episode)
        self._require_open()
        observation = self._begin(episode, np.zeros(len(self.seeds), np.int64))
        return self._log.begin(episode, observation, ~_finite(observation))

    def step(self, actions: np.ndarray) -> Timestep[np.ndarray]:
        """Takes one agent step in every environment.

        Args:
            actions: [E, A] float32 in [-1, 1], finite (the caller's duty).

        Returns:
            A `Timestep` of fresh arrays.

        Raises:
            ValueError: if the shape or dtype is wrong.
            RuntimeError: if nothing was reset yet or the environments are closed.
        """
        actions = self._log.check(actions)
        self._require_open()
        try:
            timestep, cause = self._attempt(actions)
            if timestep.lost.any():
                return self._begin_anew(actions, timestep, cause)
            observation, over = timestep.observation, timestep.over
            if over.any():
                observation = observation.copy()
                observation[over] = self._observe(self._pool.reset(np.flatnonzero(over)))
        except BaseException:
            self.close()  # an interrupt may have left some environments a control step ahead
            raise
        timestep = timestep._replace(observation=observation)
        return self._log.step(actions, timestep, ~_finite(observation))

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns what `restore` needs to continue from this very step, bit for bit.

        Returns:
            See `EpisodeLog.snapshot`; and `first`, int64, the episode that the pool was seeded for.

        Raises:
            RuntimeError: if nothing was reset yet.
        """
        return {**self._log.snapshot(), "first": np.array(self._first, np.int64)}

    def restore(self, snapshot: dict[str, np.ndarray]) -> np.ndarray:
        """Continues from a snapshot.

        Returns:
            The current observations, [E, O] float32, equal bit for bit. An environment that fails
            on the way there loses its next step.

        Raises:
            ValueError: if the snapshot was taken of other environments.
            RuntimeError: if the environments are closed.
        """
        if "first" not in snapshot:
            raise ValueError("the snapshot was not taken of EnvPool environments")
        self._log.load(snapshot)
        self._require_open()
        return self._replay(int(snapshot["first"]))

    def close(self) -> None:
        """Ends the threads; may be called again. A snapshot can still be taken."""
        self._pool, self._closed = None, True

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def _attempt(self, actions: np.ndarray) -> tuple[Timestep[np.ndarray], str]:
        """Takes one agent step everywhere, and says why steps are lost; nothing restarts yet."""
        count = len(actions)
        try:
            final, reward, terminated, truncated = self._advance(
                actions, np.arange(count), self._log.length
            )
        except Exception as error:  # it does not say in which environment
            cause, lost = f"{type(error).__name__}: {error}", np.ones(count, bool)
            final, reward = np.zeros_like(self._log.observation), np.zeros(count, np.float32)
            terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        else:
            cause = "an observation or reward is not finite"
            lost = self._log.idle | ~_finite(final) | ~np.isfinite(reward)
        reward = np.where(lost, np.float32(0), reward)
        terminated, truncated = terminated & ~lost, truncated | lost
        over = terminated | truncated
        return Timestep(final, reward, terminated, truncated, final, lost, over), cause

    def _begin_anew(
        self, actions: np.ndarray, timestep: Timestep[np.ndarray], cause: str
    ) -> Timestep[np.ndarray]:
        """Notes a step that some environments have lost, and makes the pool again behind it."""
        lost = timestep.lost
        names = np.column_stack([self.seeds, self._log.episode])[lost].tolist()
        self._notices.tell(
            f"seed {seed}, environment {index}, episode {number}: {cause}"
            for seed, index, number in names
        )
        timestep = self._log.step(actions, timestep, lost)
        self._log.idle = np.zeros_like(lost)  # they may begin their next episodes
        return timestep._replace(observation=self._replay(self._first))

    def _replay(self, first: int) -> np.ndarray:
        """Makes the pool of episode `first` and brings it to where the log is."""
        observation = self._begin(first, self._log.episode - first)
        broken = self._log.idle.copy()
        logs = [self._log.actions(i) for i in range(len(self.seeds))]
        for number in range(self._log.length.max()):
            ids = np.flatnonzero(self._log.length > number)
            actions = np.stack([logs[i][number] for i in ids])
            taken = np.full(len(ids), number)
            observation[ids], _, *ends = self._advance(actions, ids, taken)
            broken[ids] |= np.logical_or(*ends)  # it is not deterministic
        return self._log.resume(observation, broken | ~_finite(observation))

    def _begin(self, first: int, later: np.ndarray) -> np.ndarray:
        """Makes the pool of episode `first` and goes on to `later` [E] episodes after it."""
        sequences = [episode_seed(seed, index, first) for seed, index in self.seeds.tolist()]
        self._pool = envpool.make(
            self._source.name,
            env_type="dm",
            num_envs=len(self.seeds),
            num_threads=self._threads,
            env_seed=[int(s.generate_state(1)[0] >> 1) for s in sequences],  # int32
            **self._source.options,
        )
        self._first = first
        observation = self._observe(self._pool.reset())
        for number in range(later.max()):
            ids = np.flatnonzero(later > number)
            observation[ids] = self._observe(self._pool.reset(ids))
        return observation

    def _advance(
        self, actions: np.ndarray, ids: np.ndarray, length: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """One agent step of the environments `ids`; each stops at the end of its episode.

        Args:
            actions: [e, A], theirs.
            ids: [e], their positions.
            length: [e], agent steps that each has taken before in its episode.

        Returns:
            observation [e, O] float32, reward [e] float32, terminated [e], truncated [e].
        """
        control = self._offset + self._scale * actions
        observation = np.empty((len(ids), self.spec.observation.size), np.float32)
        total, discount = np.zeros(len(ids)), np.ones(len(ids))
        ended, running = np.zeros(len(ids), bool), np.arange(len(ids))
        repeat = self.spec.action_repeat
        for number in range(1, repeat + 1):
            step = self._pool.step(control[running], ids[running])
            observation[running] = self._observe(step)
            total[running] += step.reward
            discount[running] = step.discount
            at_limit = repeat * length[running] + number == self._source.limit
            ended[running] = step.last() | at_limit
            running = running[~ended[running]]
            if not running.size:
                break
        terminated = ended & (discount == 0)
        return observation, total.astype(np.float32), terminated, ended & ~terminated

    def _observe(self, step: Any) -> np.ndarray:
        """The fields of the source in its order, [e, O]; float64 is rounded to float32 once."""
        fields = [getattr(step.observation, name) for name in self._source.fields]
        columns = [field.reshape(len(field), -1) for field in fields]
        return np.concatenate(columns, axis=1).astype(np.float32)

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("these environments are closed")


def _finite(observations: np.ndarray) -> np.ndarray:
    """Which rows of [E, O] are finite, [E] bool."""
    return np.asarray(np.isfinite(observations).all(axis=1))
