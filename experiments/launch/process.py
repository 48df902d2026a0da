"""Cells that share a program as one operating-system process."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.launch.study_folder import StudyFolder
from experiments.studies import Cell

STOPPED, HELD = 75, 76  # exit statuses of experiments.run_cell
ATTEMPT = "--- a new process"  # between what the processes of a cell print to its log


class Command(NamedTuple):
    """How cells are run: a command that takes the study folder and the cells' names."""

    program: Sequence[str] = (sys.executable, "-m", "experiments.run_cell")

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
