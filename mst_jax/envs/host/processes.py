"""Starting, hearing and ending worker processes; `worker` is what they run.

Not multiprocessing's spawn: it imports the parent's `__main__` again, and with it jax.
"""

import contextlib
import io
import json
import multiprocessing
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType
from typing import Any

from tqdm import tqdm

from mst_jax.envs.base import EnvironmentFailedError

_GRACE_SECONDS = 5.0  # a worker leaves as soon as its pipe closes; after this it is killed
_PATIENCE_SECONDS = 60.0  # after this the user hears of a worker that does not answer

# The path is not given as PYTHONPATH, because a folder's name may hold the ':' that separates them.
_BOOT = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "runpy.run_module(sys.argv.pop(), run_name='__main__', alter_sys=True)"
)


class DeadWorkerError(Exception):
    """A worker process that died, or was killed because it did not answer."""


class WorkerProcess:
    """A worker process and this end of the pipe to it.

    Attributes:
        name: what to call it in messages.
        process: the process.
    """

    def __init__(self, name: str, timeout: float, cores: int = 1) -> None:
        """Starts it.

        Args:
            name: what to call it in messages.
            timeout: seconds without an answer after which it counts as dead; 0: never.
            cores: how many it may draw pictures with, if that is done in software.

        Raises:
            OSError: if no process can be started.
        """
        self.name = name
        self._timeout = timeout
        self._connection, self.process = _start(cores)
        _limit_transfers(self._connection, timeout)
        self._arrivals = select.poll()
        self._arrivals.register(self._connection, select.POLLIN)

    def send(self, request: bytes | tuple) -> None:
        """Sends actions as they are, anything else pickled.

        What a dead worker does not take is noticed when its answer is waited for.
        """
        with contextlib.suppress(OSError):
            if isinstance(request, bytes):
                self._connection.send_bytes(request)
            else:
                self._connection.send_bytes(b"")
                self._connection.send(request)

    def introduce(self, *arguments: object) -> None:
        """Sends the first message, see `worker`."""
        with contextlib.suppress(OSError):
            self._connection.send(arguments)

    def receive(self) -> bytes:
        """Waits for the answer.

        Raises:
            DeadWorkerError: if there will be none.
            EnvironmentFailedError: if it is an error that concerns all its environments; the
                worker's traceback is in the note.
        """
        self._wait()
        try:
            reply = self._connection.recv_bytes()
            if reply:
                return reply
            text, report = self._connection.recv()
        except (EOFError, OSError) as error:
            self.leave(time.monotonic() + _GRACE_SECONDS)
            raise DeadWorkerError(f"died (exit code {self.process.returncode})") from error
        failure = EnvironmentFailedError(f"{self.name} failed: {text}")
        failure.add_note(report)
        raise failure

    def hang_up(self) -> None:
        """Closes the pipe, upon which the worker leaves."""
        self._connection.close()

    def leave(self, deadline: float) -> None:
        """Waits for the process to leave until `time.monotonic()` is `deadline`, then kills it."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait(self) -> None:
        """Returns when an answer, or the end of the pipe, can be read."""
        limit = self._timeout or float("inf")
        if self._arrivals.poll(1000 * min(limit, _PATIENCE_SECONDS)):
            return
        if limit > _PATIENCE_SECONDS:
            rule = f"after {limit:g} it counts as dead" if self._timeout else "there is no limit"
            tqdm.write(
                f"{self.name} (process {self.process.pid}) has not answered for "
                f"{_PATIENCE_SECONDS:g} s; {rule} (worker_timeout)"
            )
            rest = 1000 * (limit - _PATIENCE_SECONDS) if self._timeout else None
            if self._arrivals.poll(rest):
                return
        self.process.kill()
        raise DeadWorkerError(f"has not answered for {limit:g} s")


def shut_down(workers: Sequence[WorkerProcess]) -> None:
    """Closes the pipes, waits for the workers to leave, kills those that do not."""
    for worker in workers:
        worker.hang_up()
    deadline = time.monotonic() + _GRACE_SECONDS
    for worker in workers:
        worker.leave(deadline)


def check_factory(factory: Callable[[], Any]) -> None:
    """Raises ValueError, in one line, if a factory means nothing in another process."""
    try:
        _Checker(io.BytesIO()).dump(factory)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{factory!r} cannot be sent to worker processes ({error}): give a function or class "
            "of a module, or a functools.partial of one"
        ) from error


class _Checker(pickle.Pickler):
    """Refuses what is defined in the program itself, which workers do not run."""

    def persistent_id(self, value: Any) -> None:
        if isinstance(value, (type, FunctionType)) and value.__module__ == "__main__":
            raise ValueError(
                f"{value.__qualname__} is defined in the running script or notebook, where worker "
                "processes cannot find it: put it into a file of its own and import it from there"
            )


def command(module: str, *arguments: str) -> list[str]:
    """What to run for a module to be the program of another process that finds what this one does.

    Args:
        module: its full name.
        arguments: what it finds behind the first entry of `sys.argv`.
    """
    path = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
    return [sys.executable, "-P", "-c", _BOOT, *arguments, module, path]


def _start(cores: int) -> tuple[Connection, subprocess.Popen]:
    """Starts one worker, deaf to SIGINT and SIGTERM from its first instruction."""
    here, there = multiprocessing.Pipe()
    # Of Mesa's software renderer, for which 0 is to draw in the thread that asks.
    threads = {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": str(cores if cores > 1 else 0)}
    # The new process inherits the mask of blocked signals; a handler of its own would be too late.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process = subprocess.Popen(
            command("mst_jax.envs.host.worker", str(there.fileno())),
            env=os.environ | threads,
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
        )
    except BaseException:
        here.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        there.close()
    return here, process


def _limit_transfers(connection: Connection, seconds: float) -> None:
    """Lets reads and writes of a pipe fail when they make no progress for so long; 0: never.

    A worker can stop while it takes a long request or in the middle of its answer.
    """
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    with socket.socket(fileno=os.dup(connection.fileno())) as pipe:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            pipe.setsockopt(socket.SOL_SOCKET, option, limit)
