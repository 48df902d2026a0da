"""Runs cells of a study in one program: python -m experiments.run_cell FOLDER CELL [CELL ...].

The launchers do this. Exit status 0: finished; 75: stopped by a signal, to be resumed; 76: another
process runs one of them.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from experiments.cli import launch, one_line_errors
from experiments.inputs import user_path
from experiments.launch.process import HELD, STOPPED
from experiments.launch.study_folder import (
    StudyFolder,
    drop_full_checkpoints,
    is_begun,
)
from experiments.studies import Cell
from mst_jax.runs import DamagedCheckpointError, is_finished
from mst_jax.runs.lock import HeldError
from mst_jax.training import (
    Job,
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
            status = run(folder, cells)
        except HeldError as error:
            print(error)
            status = HELD
    sys.exit(status)


def run(folder: StudyFolder, cells: Sequence[Cell]) -> int:
    """Trains or resumes cells; returns the exit status.

    Raises:
        HeldError: somebody else is at one of them.
        ValueError: a run folder is not what the plan says.
        DamagedCheckpointError: one has checkpoints and none is intact.
    """
    for jobs in _parts(folder, [cell for cell in cells if not is_finished(folder.run(cell))]):
        if not all(outcome.finished for outcome in train_together(make_program(jobs))):
            return STOPPED
    for cell in cells:
        drop_full_checkpoints(folder.run(cell))
    return 0


def _parts(folder: StudyFolder, cells: Sequence[Cell]) -> Iterator[list[Job]]:
    """The runs of one program each, those begun first; planned when their turn comes."""
    begun = [cell for cell in cells if is_begun(folder.run(cell), cell.settings)]
    yield from _resumed([folder.run(cell) for cell in begun])
    new = [cell.settings for cell in cells if cell not in begun]
    if new:
        yield [plan_run(settings, folder.path / "runs") for settings in new]


def _resumed(runs: Sequence[Path]) -> Iterator[list[Job]]:
    """Runs to continue, in one program if they have a step in common, else one by one.

    A cell that was killed before its first full checkpoint begins anew: it was nobody's to keep.
    """
    if len(runs) > 1:
        try:
            jobs = resume_together(runs, begin_anew=True)
        except HeldError:
            raise
        except (ValueError, DamagedCheckpointError) as error:
            print(f"continuing one by one: {error}", flush=True)
        else:
            yield jobs
            return
    for path in runs:
        yield [plan_resume(path, begin_anew=True)]


def _watch(parent: int) -> None:
    """Asks this process to stop once its launcher is gone, so that nothing runs unattended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    launch(main, arguments=True)
