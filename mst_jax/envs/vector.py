"""Host environments in worker processes, with exact resume at any step.

Processes, not threads: dm_control spends its time in Python (shared/envs.md §1). Not
multiprocessing's spawn either: it imports the parent's `__main__` again, and with it jax.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import numpy as np

from mst_jax.envs.base import HostEnv, Spec, Timestep, check_seeds
from mst_jax.envs.worker import record_dtype

_GRACE_SECONDS = 5.0  # a worker leaves as soon as its pipe closes; after this it is killed


class WorkerVectorEnv:
    """Steps E environments in worker processes, several in each, one message per worker and step.

    The parent keeps what exact resume needs (episode numbers and the actions of the current
    episodes), so a snapshot costs no message and works even after a worker has died.

    Attributes:
      spec: sizes of the task.
      seeds: [E, 2] int64, the (seed, environment index) of each environment.
    """

    def __init__(
        self,
        spec: Spec,
        factory: Callable[[], HostEnv],
        seeds: Sequence[tuple[int, int]],
        workers: int | None = None,
    ) -> None:
        """Starts the workers; they load their environments while the caller goes on.

        Args:
          spec: sizes of the task.
          factory: makes one environment; a module-level function or a partial of one, since it
            is pickled.
          seeds: a (seed, environment index) pair for each environment.
          workers: number of processes; by default one per core, at most one per environment.

        Raises:
          ValueError: if the seeds or the number of workers make no sense.
        """
        self.spec = spec
        self.seeds = check_seeds(seeds)
        count = len(self.seeds)
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1; got {workers}")
        workers = min(workers or len(os.sched_getaffinity(0)), count)
        self._episode = np.full(count, -1, np.int64)
        self._length = np.zeros(count, np.int64)
        self._actions = np.zeros((count, spec.episode_length or 1024, spec.action_size), np.float32)
        self._everyone = np.arange(count)
        bounds = np.linspace(0, count, workers + 1).astype(int)
        self._blocks = [slice(a, b) for a, b in itertools.pairwise(bounds)]
        self._record = record_dtype(spec.observation_size)
        self._connections: list[Connection] = []
        self._processes: list[subprocess.Popen] = []
        self._shutdown = weakref.finalize(self, _shutdown, self._connections, self._processes)
        try:
            for block in self._blocks:
                connection, process = _start_worker()
                self._connections.append(connection)
                self._processes.append(process)
                connection.send((factory, self.seeds[block]))
        except BaseException:
            self.close()
            raise

    def reset(self, episode: int = 0) -> np.ndarray:
        """Starts episode number `episode` in every environment.

        Returns:
          The first observations, [E, O] float32.

        Raises:
          ValueError: if `episode` is not in [0, 2**32).
          RuntimeError: if a worker failed or the environments are closed.
        """
        if not 0 <= episode < 2**32:
            raise ValueError(f"episode must lie in [0, 2**32); got {episode}")
        count = len(self.seeds)
        return self._start(np.full(count, episode, np.int64), np.zeros(count, np.int64))

    def step(self, actions: np.ndarray) -> Timestep:
        """Takes one agent step in every environment.

        Args:
          actions: [E, A] float32 in [-1, 1], finite (the caller's duty).

        Returns:
          A `Timestep` of fresh arrays.

        Raises:
          ValueError: if the shape or dtype is wrong.
          RuntimeError: if nothing was reset yet, a worker failed or the environments are closed.
        """
        actions = np.ascontiguousarray(actions)
        shape = (len(self.seeds), self.spec.action_size)
        if actions.shape != shape or actions.dtype != np.float32:
            raise ValueError(
                f"actions must be float32 {shape}; got {actions.dtype} {actions.shape}"
            )
        self._require_started()
        timestep = self._exchange([actions[block].tobytes() for block in self._blocks])
        self._log(actions, timestep.terminated | timestep.truncated)
        return timestep

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns what `restore` needs to continue from this very step, bit for bit.

        Returns:
          `seeds` [E, 2] int64, `episode` [E] int64, `length` [E] int64 (agent steps taken in the
          current episode) and `actions` [E, T, A] float32 (those steps' actions, then zeros;
          T is the episode length, or grows if there is none).

        Raises:
          RuntimeError: if nothing was reset yet.
        """
        self._require_started()
        taken = np.arange(self._actions.shape[1]) < self._length[:, None]
        return {
            "seeds": self.seeds.copy(),
            "episode": self._episode.copy(),
            "length": self._length.copy(),
            "actions": np.where(taken[..., None], self._actions, np.float32(0)),
        }

    def restore(self, snapshot: dict[str, np.ndarray]) -> np.ndarray:
        """Continues from a snapshot: restarts its episodes and replays their actions.

        Returns:
          The current observations, [E, O] float32, equal bit for bit.

        Raises:
          ValueError: if the snapshot was taken of other environments.
          RuntimeError: if a worker failed or the environments are closed.
        """
        if not np.array_equal(snapshot["seeds"], self.seeds):
            raise ValueError("the snapshot was taken with other seeds than these environments have")
        actions = np.array(snapshot["actions"], np.float32)
        count, _, size = self._actions.shape
        shape = (count, self.spec.episode_length or actions.shape[1], size)
        if actions.shape != shape:
            raise ValueError(
                f"the snapshot holds actions {actions.shape}, these environments need {shape}: "
                "was it taken of another task or action repeat?"
            )
        self._actions = actions
        episode, length = (np.array(snapshot[name], np.int64) for name in ("episode", "length"))
        return self._start(episode, length)

    def close(self) -> None:
        """Ends the workers; may be called again. A snapshot can still be taken."""
        self._shutdown()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def _start(self, episode: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Starts the given episodes, replays the first `length` logged actions of each."""
        logs = [log[:steps] for log, steps in zip(self._actions, length, strict=True)]
        starts = [(episode[block].tolist(), logs[block]) for block in self._blocks]
        observation = self._exchange(starts).observation
        self._episode, self._length = episode, length
        return observation

    def _require_started(self) -> None:
        if self._episode[0] < 0:
            raise RuntimeError("call reset() or restore() first")

    def _log(self, actions: np.ndarray, ended: np.ndarray) -> None:
        """Appends the actions of a step that succeeded; forgets those of finished episodes."""
        if self._length.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        self._actions[self._everyone, self._length] = actions
        self._length = np.where(ended, 0, self._length + 1)
        self._episode += ended

    def _exchange(self, requests: Sequence[bytes | tuple]) -> Timestep:
        """Sends each worker its request and gathers the replies.

        Any exception, an interrupt included, closes the environments: a reply left unread would
        be taken for the answer to the next request.
        """
        if not self._shutdown.alive:
            raise RuntimeError("these environments are closed")
        try:
            for worker, request in enumerate(requests):
                self._send(worker, request)
            parts = [self._receive(worker) for worker in range(len(requests))]
        except BaseException:
            self.close()
            raise
        return Timestep(*(np.concatenate([p[name] for p in parts]) for name in Timestep._fields))

    def _send(self, worker: int, request: bytes | tuple) -> None:
        try:
            if isinstance(request, bytes):
                self._connections[worker].send_bytes(request)
            else:
                self._connections[worker].send_bytes(b"")
                self._connections[worker].send(request)
        except OSError as error:
            raise self._died(worker) from error

    def _receive(self, worker: int) -> np.ndarray:
        """Returns the records of one worker's environments."""
        try:
            reply = self._connections[worker].recv_bytes()
            if reply:
                return np.frombuffer(reply, self._record)
            report = self._connections[worker].recv()
        except (EOFError, OSError) as error:
            raise self._died(worker) from error
        failure = RuntimeError(f"{self._name(worker)} failed: {report.strip().splitlines()[-1]}")
        failure.add_note(report)
        raise failure

    def _died(self, worker: int) -> RuntimeError:
        process = self._processes[worker]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
        return RuntimeError(f"{self._name(worker)} died (exit code {process.returncode})")

    def _name(self, worker: int) -> str:
        block = self._blocks[worker]
        return f"worker {worker} of {self.spec.task} (environments {block.start}-{block.stop - 1})"


def _start_worker() -> tuple[Connection, subprocess.Popen]:
    """Starts one worker, deaf to SIGINT and SIGTERM from its first instruction."""
    here, there = multiprocessing.Pipe()
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "mst_jax.envs.worker", str(there.fileno())]
    # The new process inherits the mask of blocked signals; a handler of its own would be too late.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process = subprocess.Popen(
            command, env=environment, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL
        )
    except BaseException:
        here.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        there.close()
    return here, process


def _shutdown(connections: Sequence[Connection], processes: Sequence[subprocess.Popen]) -> None:
    """Closes the pipes, waits for the workers to leave, kills those that do not."""
    for connection in connections:
        connection.close()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
