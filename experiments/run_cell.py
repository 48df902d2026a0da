"""Runs cells of a study in one program: python -m experiments.run_cell FOLDER CELL [CELL ...].

The launchers do this. Exit status 0: finished; 75: stopped by a signal, to be resumed; 76: another
process runs one of them.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from absl import flags

from experiments.cli import launch, one_line_errors
from experiments.inputs import user_path
from experiments.launch.locks import HeldError, held
from experiments.launch.process import HELD, STOPPED
from experiments.launch.study_folder import (
    StudyFolder,
    drop_full_checkpoints,
    prepare_run,
)
from experiments.studies import Cell
from mst_jax.training import (
    DamagedCheckpointError,
    Job,
    is_finished,
    make_program,
    plan_resume,
    plan_run,
    resume_together,
    train_together,
)

PARENT = flags.DEFINE_integer(
    "parent",
    0,
    "Stop, with a checkpoint, when this is no longer the parent process; 0: go on.",
    lower_bound=0,
)


def main(argv: list[str]) -> None:
    """Trains the cells that are not finished, unless somebody else is at one of them."""
    with one_line_errors():
        if len(argv) < 3:
            raise ValueError("name a study folder and cells")
        folder = StudyFolder(user_path(argv[1]))
        cells = [folder.cell(name) for name in argv[2:]]
        if PARENT.value:
            threading.Thread(target=_watch, args=(PARENT.value,), daemon=True).start()
        try:
            with ExitStack() as locks:
                for cell in cells:
                    locks.enter_context(held(folder.lock(cell)))
                status = run(folder, cells)
        except HeldError as error:
            print(f"{cells[0].id}: {error}")
            status = HELD
    sys.exit(status)


def run(folder: StudyFolder, cells: Sequence[Cell]) -> int:
    """Trains or resumes cells whose locks are held; returns the exit status.

    Raises:
        ValueError: a run folder is not what the plan says.
        DamagedCheckpointError: one has checkpoints and none is intact.
    """
    todo = [cell for cell in cells if not is_finished(folder.run(cell))]
    begun = [cell for cell in todo if prepare_run(folder.run(cell), cell.settings)]
    new = [cell.settings for cell in todo if cell not in begun]
    parts = _resumed([folder.run(cell) for cell in begun])
    if new:
        parts.append([plan_run(settings, folder.path / "runs") for settings in new])
    for jobs in parts:
        if not all(outcome.finished for outcome in train_together(make_program(jobs))):
            return STOPPED
    for cell in cells:
        drop_full_checkpoints(folder.run(cell))
    return 0


def _resumed(runs: Sequence[Path]) -> list[list[Job]]:
    """Runs to continue, in one program if they have a step in common, else one by one."""
    if len(runs) > 1:
        try:
            return [resume_together(runs)]
        except (ValueError, DamagedCheckpointError) as error:
            print(f"continuing one by one: {error}", flush=True)
    return [[plan_resume(path)] for path in runs]


def _watch(parent: int) -> None:
    """Asks this process to stop once its launcher is gone, so that nothing runs unattended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    launch(main, arguments=True)
