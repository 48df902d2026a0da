"""A run folder has one owner: a lock file that says who, and that is taken over when it is gone."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

LOCK, GUARD = "lock.json", ".guard"  # in the folder that is held
HEARTBEAT = 5.0  # seconds between signs of life
SILENCE = 600.0  # seconds without one after which an owner on another machine counts as gone


class HeldError(ValueError):
    """Another process owns the folder; the message says which."""


class Owner(NamedTuple):
    """A process that holds, or held, a folder.

    Attributes:
        pid: its process.
        host: its machine.
        started: when the process began, because process numbers are used again.
        job: the SLURM job it is in, if any.
        restart: how often SLURM had requeued that job.
    """

    pid: int
    host: str
    started: str | None
    job: str | None = None
    restart: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}{f' (SLURM job {self.job})' if self.job else ''}"


@contextmanager
def exclusive(guard: Path) -> Iterator[None]:
    """Serialises short sections between processes; the kernel lets go when a holder dies.

    The file `guard` exists only meanwhile.
    """
    while True:
        with guard.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is(file.fileno(), guard):
                continue  # it was deleted by the one before, while we waited for it
            try:
                yield
            finally:
                guard.unlink()
            return


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Owns a folder while the block runs; made for it, and deleted after it if still empty.

    A folder whose owner is gone is taken over: see `owner`. Looking and taking over are one step
    under `exclusive`, so that two processes cannot both do it.

    Raises:
        HeldError: when another process owns it, or this one already does.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock, me = folder / LOCK, _myself()
    with exclusive(folder / GUARD):
        refuse_if_held(folder)
        _write(lock, me)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, me, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        if _read(lock) == me:  # not, if we were silent for so long that another took it over
            lock.unlink(missing_ok=True)
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()


def refuse_if_held(folder: Path) -> None:
    """Raises HeldError, with the owner's process and machine, when a living one has the folder."""
    found = owner(folder)
    if found is not None:
        raise HeldError(f"{folder} is in use by {found}; wait for it to end, or stop it")


def owner(folder: Path) -> Owner | None:
    """Who owns a folder now; None when nobody living does.

    An owner is gone when no process of this machine has its number and start time, or when it gave
    no sign of life for `SILENCE` seconds on another machine. A SLURM job that was requeued does not
    wait for its former self, wherever that ran.
    """
    lock = folder / LOCK
    found = _read(lock)
    if found is None:
        return None
    me = _myself()
    if found.job is not None and found.job == me.job and found.restart != me.restart:
        return None  # SLURM begins a job again only when its processes have ended
    if found.host == me.host:
        return found if _started(found.pid) == found.started else None
    try:
        silent = time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return None
    return found if silent < SILENCE else None


def _myself() -> Owner:
    job = os.environ.get("SLURM_JOB_ID")
    restart = os.environ.get("SLURM_RESTART_COUNT", "0") if job else None
    return Owner(os.getpid(), socket.gethostname(), _started(os.getpid()), job, restart)


def _read(lock: Path) -> Owner | None:
    """What a lock file says; None when it was let go, or half-written by a killed process."""
    try:
        found: dict[str, Any] = json.loads(lock.read_text(encoding="utf-8"))
        return Owner(**found)
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, TypeError):
        return None


def _write(lock: Path, me: Owner) -> None:
    lock.unlink(missing_ok=True)
    descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(me._asdict(), file)


def _beat(lock: Path, me: Owner, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        try:
            if _read(lock) != me:
                return
            os.utime(lock)
        except OSError:
            continue  # a network file system may be away for a while


def _is(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that has this path now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _started(pid: int) -> str | None:
    """When a process of this machine began (clock ticks since boot), so that pids can be reused.

    None when there is none, or only a dead one that its parent has not asked about. Where there is
    no /proc, a living process has "unknown".
    """
    stat = Path(f"/proc/{pid}/stat")
    try:
        state, *rest = stat.read_text().rpartition(")")[2].split()
        return None if state in ("Z", "X") else rest[18]
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
