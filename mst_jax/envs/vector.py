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

from mst_jax.envs.base import (
    HostEnv,
    Spec,
    Timestep,
    check_episode,
    check_seeds,
    worker_count,
)
from mst_jax.envs.episode_log import EpisodeLog
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
        self._log = EpisodeLog(spec, self.seeds)
        count = len(self.seeds)
        workers = worker_count(workers, count)
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
        check_episode(episode)
        nothing = np.zeros((0, self.spec.action_size), np.float32)
        observation = self._start([(episode, nothing)] * len(self.seeds))
        self._log.begin(episode)
        return observation

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
        actions = self._log.check(actions)
        timestep = self._exchange([actions[block].tobytes() for block in self._blocks])
        self._log.append(actions, timestep.terminated | timestep.truncated)
        return timestep

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
          The current observations, [E, O] float32, equal bit for bit.

        Raises:
          ValueError: if the snapshot was taken of other environments.
          RuntimeError: if a worker failed or the environments are closed.
        """
        self._log.load(snapshot)
        episodes = self._log.episode.tolist()
        return self._start([(number, self._log.actions(i)) for i, number in enumerate(episodes)])

    def close(self) -> None:
        """Ends the workers; may be called again. A snapshot can still be taken."""
        self._shutdown()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def _start(self, starts: list[tuple[int, np.ndarray]]) -> np.ndarray:
        """Starts an episode in each environment, given its number and the actions to replay."""
        requests = [tuple(zip(*starts[block], strict=True)) for block in self._blocks]
        return self._exchange(requests).observation

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
