"""Host environments in worker processes, with exact resume at any step.

Processes, not threads: dm_control spends its time in Python.
"""

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from tqdm import tqdm

from mst_jax.envs.base import (
    WORKER_TIMEOUT,
    EnvironmentFailedError,
    HostEnv,
    Spec,
    Timestep,
    check_episode,
    check_seeds,
    core_count,
    worker_count,
)
from mst_jax.envs.host.episode_log import EpisodeLog
from mst_jax.envs.host.notices import Notices
from mst_jax.envs.host.processes import DeadWorkerError, WorkerProcess, check_factory, shut_down
from mst_jax.envs.host.worker import RECORDED, record_dtype

# An episode to start: its number, and the actions to replay, or None to leave it idle.
Start = tuple[int, np.ndarray | None]


class WorkerVectorEnv:
    """Steps E environments in worker processes, several in each, one message per worker and step.

    The parent keeps what exact resume needs (episode numbers and the actions of the current
    episodes), so a snapshot costs no message and works even after a worker has died. A worker that
    dies is started again: its environments lose the step and go on with their next episodes.

    Attributes:
        spec: of the task.
        seeds: [E, 2] int64, the (seed, environment index) of each environment.
    """

    def __init__(
        self,
        spec: Spec,
        factory: Callable[[], HostEnv],
        seeds: Sequence[tuple[int, int]],
        workers: int | None = None,
        timeout: float = WORKER_TIMEOUT,
        label: str | None = None,
    ) -> None:
        """Starts the workers; they load their environments while the caller goes on.

        Args:
            spec: of the task.
            factory: makes one environment; a module-level function or a partial of one, since it
                is pickled.
            seeds: a (seed, environment index) pair for each environment.
            workers: number of processes; by default one per core, at most one per environment.
            timeout: seconds without an answer after which a worker counts as dead; 0: never.
            label: what to call the environments in messages; the task's name by default.

        Raises:
            ValueError: if the seeds or the number of workers make no sense, or other processes
                could not find the factory.
        """
        self.spec = spec
        self.seeds = check_seeds(seeds)
        check_factory(factory)
        self._factory, self._timeout = factory, timeout
        self._log = EpisodeLog(spec, self.seeds)
        self._label = label or spec.task
        self._notices = Notices(self._label)
        count = len(self.seeds)
        workers = worker_count(workers, count)
        bounds = np.linspace(0, count, workers + 1).astype(int)
        self._blocks = [slice(a, b) for a, b in itertools.pairwise(bounds)]
        self._record = record_dtype(spec.observation)
        self._workers: list[WorkerProcess] = []
        self._shutdown = weakref.finalize(self, shut_down, self._workers)
        try:
            for worker in range(workers):
                self._workers.append(self._start_worker(worker))
        except BaseException:
            self.close()
            raise

    @property
    def errors(self) -> np.ndarray:
        """[E] int64, steps that each environment has lost so far."""
        return self._log.errors

    @property
    def restarts(self) -> int:
        """How often a worker had to be started again."""
        return self._log.restarts

    def reset(self, episode: int = 0) -> np.ndarray:
        """Starts episode number `episode` in every environment.

        Returns:
            The first observations, [E, *O]; zeros where the episode could not be started.

        Raises:
            ValueError: if `episode` is not in [0, 2**32).
            EnvironmentFailedError: if a worker cannot go on; the environments are closed then.
            RuntimeError: if the environments are closed.
        """
        check_episode(episode)
        nothing = self.spec.action.zeros(0)
        timestep, idle = self._begin([(episode, nothing)] * len(self.seeds))
        return self._log.begin(episode, timestep.observation, idle)

    def step(self, actions: np.ndarray) -> Timestep[np.ndarray]:
        """Takes one agent step in every environment.

        Args:
            actions: [E, A] float32 in [-1, 1], finite (the caller's duty), or int32 [E].

        Returns:
            A `Timestep` of fresh arrays.

        Raises:
            ValueError: if the shape or dtype is wrong.
            EnvironmentFailedError: if a worker cannot go on; the environments are closed then, and
                a snapshot is that of the last complete step.
            RuntimeError: if nothing was reset yet or the environments are closed.
        """
        actions = self._log.check(actions)
        requests = [actions[block].tobytes() for block in self._blocks]
        timestep, idle = self._exchange(requests, self._after_death)
        return self._log.step(actions, timestep, idle)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns what `restore` needs to continue from this very step, bit for bit.

        Returns:
            See `EpisodeLog.snapshot`.

        Raises:
            RuntimeError: if nothing was reset yet.
        """
        return self._log.snapshot()

    def restore(self, snapshot: dict[str, np.ndarray]) -> np.ndarray:
        """Continues from a snapshot: restarts its episodes and replays their actions.

        Returns:
            The current observations, [E, *O], equal bit for bit. An environment that fails on
            the way there loses its next step.

        Raises:
            ValueError: if the snapshot was taken of other environments.
            EnvironmentFailedError: if a worker cannot go on; the environments are closed then.
            RuntimeError: if the environments are closed.
        """
        self._log.load(snapshot)
        starts = [
            (number, None if self._log.idle[i] else self._log.actions(i))
            for i, number in enumerate(self._log.episode.tolist())
        ]
        timestep, idle = self._begin(starts)
        return self._log.resume(timestep.observation, idle)

    def close(self) -> None:
        """Ends the workers; may be called again. A snapshot can still be taken."""
        self._shutdown()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def _begin(self, starts: list[Start]) -> tuple[Timestep[np.ndarray], np.ndarray]:
        """Starts an episode in each environment; of the timestep only observations are used."""
        requests = [_request(starts[block]) for block in self._blocks]

        def again(worker: int, reason: Exception) -> np.ndarray:
            return self._start_again(worker, starts[self._blocks[worker]], f"{reason}")

        return self._exchange(requests, again)

    def _after_death(self, worker: int, reason: Exception) -> np.ndarray:
        """The records of a step during which a worker died: it begins the next episodes."""
        nothing = self.spec.action.zeros(0)
        following = (self._log.episode[self._blocks[worker]] + 1).tolist()
        starts: list[Start] = [(number, nothing) for number in following]
        records = self._start_again(worker, starts, f"{reason}, its episodes are lost").copy()
        records["lost"] = records["truncated"] = records["over"] = True
        return records

    def _exchange(
        self, requests: Sequence[bytes | tuple], replace: Callable[[int, Exception], np.ndarray]
    ) -> tuple[Timestep[np.ndarray], np.ndarray]:
        """Sends each worker its request and gathers the replies; `replace` makes those of the dead.

        Any exception, an interrupt included, closes the environments: a reply left unread would
        be taken for the answer to the next request.

        Returns:
            What came of it, and which environments are idle, [E] bool.
        """
        if not self._shutdown.alive:
            raise RuntimeError("these environments are closed")
        try:
            for worker, request in zip(self._workers, requests, strict=True):
                worker.send(request)
            parts = []
            for worker in range(len(requests)):
                try:
                    parts.append(self._receive(worker))
                except DeadWorkerError as error:
                    parts.append(replace(worker, error))
        except BaseException:
            self.close()
            raise
        *fields, idle = (np.concatenate([p[n] for p in parts]) for n in RECORDED)
        return Timestep(*fields), idle

    def _receive(self, worker: int) -> np.ndarray:
        """Returns the records of one worker's environments, and prints which of them failed."""
        reply = self._workers[worker].receive()
        block = self._blocks[worker]
        size = (block.stop - block.start) * self._record.itemsize
        if len(reply) > size:
            self._notices.tell(reply[size:].decode().splitlines())
        return np.frombuffer(reply[:size], self._record)

    def _start_again(self, worker: int, starts: list[Start], reason: str) -> np.ndarray:
        """Replaces a dead worker by a new one and starts these episodes in it.

        A second one is left idle: a worker may die of what it is asked to start.
        """
        idle: list[Start] = [(number, None) for number, _ in starts]
        name = self._workers[worker].name
        for attempt in (starts, idle):
            tqdm.write(f"{name} {reason}; it is started again")
            self._log.restarts += 1
            try:
                shut_down([self._workers[worker]])
                self._workers[worker] = self._start_worker(worker)
                self._workers[worker].send(_request(attempt))
                return self._receive(worker)
            except (DeadWorkerError, OSError) as error:
                reason = str(error)
        raise EnvironmentFailedError(f"{name} {reason}, as did the one before it")

    def _start_worker(self, worker: int) -> WorkerProcess:
        block = self._blocks[worker]
        name = f"worker {worker} of {self._label} (environments {block.start}-{block.stop - 1})"
        process = WorkerProcess(name, self._timeout, cores=core_count() // len(self._blocks))
        process.introduce(self._factory, self.seeds[block], self.spec)
        return process


def _request(starts: Sequence[Start]) -> tuple:
    """The message that starts these episodes, see `worker`."""
    return tuple(zip(*starts, strict=True))
