"""Runs one cell of a study, as the launchers do: python -m experiments.run_cell FOLDER CELL.

Exit status 0: finished; 75: stopped by a signal, to be resumed; 76: another process runs it.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from absl import flags

from experiments.cli import launch, one_line_errors
from experiments.launch.locks import HeldError, held
from experiments.launch.process import HELD, STOPPED
from experiments.launch.study_folder import (
    StudyFolder,
    drop_full_checkpoints,
    is_finished,
    prepare_run,
)
from experiments.studies import Cell
from mst_jax.training import plan_resume, plan_run, train

PARENT = flags.DEFINE_integer(
    "parent", 0, "Stop, with a checkpoint, when this is no longer the parent process; 0: go on."
)


def main(argv: list[str]) -> None:
    """Trains the cell unless it is finished or somebody else is at it."""
    with one_line_errors():
        if len(argv) != 3:
            raise ValueError("name a study folder and a cell")
        folder = StudyFolder(Path(argv[1]))
        cell = folder.cell(argv[2])
        if PARENT.value:
            threading.Thread(target=_watch, args=(PARENT.value,), daemon=True).start()
        try:
            with held(folder.lock(cell)):
                status = run(folder, cell)
        except HeldError as error:
            print(f"{cell.id}: {error}")
            status = HELD
        except OSError as error:
            raise ValueError(f"{error.strerror}: {error.filename or cell.id}") from error
    sys.exit(status)


def run(folder: StudyFolder, cell: Cell) -> int:
    """Trains or resumes a cell whose lock is held; returns the exit status.

    Raises:
        ValueError: its run folder is not what the plan says.
        DamagedCheckpointError: it has checkpoints and none is intact.
    """
    path = folder.run(cell)
    if not is_finished(path):
        resume = prepare_run(path, cell.settings)
        job = plan_resume(path) if resume else plan_run(cell.settings, folder.path / "runs")
        if not train(job).finished:
            return STOPPED
    drop_full_checkpoints(path)
    return 0


def _watch(parent: int) -> None:
    """Asks this process to stop once its launcher is gone, so that nothing runs unattended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    launch(main)
