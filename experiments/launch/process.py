"""Cells that share a program as one operating-system process."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.cli import fresh_process
from experiments.launch.study_folder import StudyFolder
from experiments.studies import Cell
from mst_jax.runs.folder import METRICS, seed_folder

STOPPED, HELD = 75, 76  # exit statuses of experiments.run_cell
ATTEMPT = "--- a new process"  # between what the processes of a cell print to its log
NOTICE = 60.0  # seconds of silence after which it is told, then after twice as many, and so on
LOOK = 1.0  # seconds between two looks at the files
GRACE = 60.0  # seconds to write a checkpoint in before a silent process is killed


class Command(NamedTuple):
    """How cells are run: a command that takes the study folder and the cells' names."""

    program: Sequence[str] = tuple(fresh_process("run_cell"))

    def line(self, folder: StudyFolder, cells: Sequence[Cell], parent: int) -> list[str]:
        """The whole command line."""
        names = [cell.id for cell in cells]
        return [*self.program, str(folder.path), *names, f"--parent={parent}"]


def start(
    command: Command,
    folder: StudyFolder,
    cells: Sequence[Cell],
    environment: Mapping[str, str],
    parent: int = 0,
) -> subprocess.Popen:
    """Starts cells in a session of their own: Ctrl-C reaches them through the launcher only.

    What they print is appended to the first one's log.
    """
    with folder.log(cells[0]).open("ab") as log:
        log.write(f"{ATTEMPT}\n".encode())
        return subprocess.Popen(
            command.line(folder, cells, parent),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
        )


class Silence:
    """How long cells have shown nothing, which is all that a launcher sees of one that hangs.

    A sign of life is a line in the log or a row of metrics. Time is this process's own, so clocks
    of file servers do not matter.
    """

    def __init__(
        self, folder: StudyFolder, cells: Sequence[Cell], limit: float | None = None
    ) -> None:
        """Begins to watch.

        Args:
            folder: of the study.
            cells: those of one program.
            limit: seconds of silence after which they are overdue; None for any number.
        """
        self._files = [folder.log(cells[0])]
        for cell in cells:
            self._files.append(seed_folder(folder.run(cell), cell.settings.seed) / METRICS)
        self._limit = limit
        self._seen = self._state()
        self._since = self._looked = time.monotonic()
        self._tell_at = NOTICE
        self._asked: float | None = None  # when the process was asked to stop

    @property
    def seconds(self) -> float:
        """Since the last sign of life."""
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            state = self._state()
            if state != self._seen:
                self._seen, self._since, self._tell_at = state, now, NOTICE
        return now - self._since

    @property
    def overdue(self) -> bool:
        """Whether the limit has passed; for good once a process was asked to stop for it."""
        late = self._limit is not None and self.seconds >= self._limit
        return late or self._asked is not None

    def news(self) -> str | None:
        """A line, each time that the silence has lasted twice as long as when it was last told."""
        seconds = self.seconds
        if seconds < self._tell_at:
            return None
        self._tell_at = 2 * seconds
        return f"nothing new for {seconds:.0f} s in {self._files[0]}"

    def end(self, process: subprocess.Popen) -> None:
        """Asks a process to write a checkpoint and stop; later calls kill one that does not."""
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            process.terminate()
        elif now - self._asked > GRACE:
            process.kill()

    def reason(self) -> str:
        """Why a process was ended."""
        return f"it showed nothing for {self._limit:.0f} s (--cell_timeout); {self._files[0]}"

    def _state(self) -> list[tuple[int, int] | None]:
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever a file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def explain(returncode: int, log: Path) -> str:
    """Why a process failed, in one line."""
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}; {log}"
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = text.rpartition(ATTEMPT)[2].splitlines()
    told = [line.strip() for line in lines if line.strip()]
    errors = [line for line in told if line.startswith("error: ")]
    return f"{(errors or told or ['it printed nothing'])[-1]}; {log}"
