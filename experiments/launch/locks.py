"""A lock file that says who holds it, and can be taken over when its holder is gone."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HEARTBEAT = 5.0  # seconds between signs of life
SILENCE = 600.0  # seconds without one after which a holder on another machine counts as gone


class HeldError(Exception):
    """Somebody else holds the lock; the message says who."""


@contextmanager
def exclusive(guard: Path) -> Iterator[None]:
    """Serialises short sections between processes; the kernel lets go when a holder dies."""
    with guard.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Holds a lock file (created with O_EXCL, holding pid and host) while the block runs.

    A lock whose holder is gone is taken over: on this machine when no process has its pid and start
    time, on another when it gave no sign of life for `SILENCE` seconds. Looking and taking over
    are one step under `exclusive`, so that two processes cannot take over the same lock.

    Raises:
        HeldError: when the holder lives.
    """
    me = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
    with exclusive(lock.with_name(".guard")):
        other = holder(lock)
        if other is not None:
            raise HeldError(f"process {other['pid']} on {other['host']} holds it")
        lock.unlink(missing_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with os.fdopen(descriptor, "w") as file:
            json.dump(me, file)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        lock.unlink(missing_ok=True)


def holder(lock: Path) -> dict[str, Any] | None:
    """Who holds a lock now: `pid`, `host` and `started`; None when nobody living does."""
    try:
        found = json.loads(lock.read_text())
        silent = time.time() - lock.stat().st_mtime
        pid, host, started = found["pid"], found["host"], found["started"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None  # never there, let go just now, or half-written by a killed process
    alive = _started(pid) == started if host == socket.gethostname() else silent < SILENCE
    return found if alive else None


def _beat(lock: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        try:
            os.utime(lock)
        except FileNotFoundError:
            return


def _started(pid: int) -> str | None:
    """When a process of this machine began (clock ticks since boot), so that pids can be reused.

    None when there is none. Where there is no /proc, a living process has "unknown".
    """
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
