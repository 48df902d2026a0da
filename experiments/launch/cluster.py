"""Cells as a job array of SLURM, through submitit, surviving pre-emption."""

import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.launch.process import HELD, STOPPED, Command, explain, start
from experiments.launch.study_folder import StudyFolder
from experiments.studies import Cell

REQUEUES = 1000  # a long cell may run into its time limit often
INSTALL = "submitit is missing: pip install -e '.[slurm]'"


@dataclass
class CellJob:
    """One cell as a submitit job: it is pickled, sent to a node and called there."""

    folder: Path
    cell_id: str
    command: Command
    attempts: int = 2
    _process: subprocess.Popen | None = field(default=None, repr=False)
    _waiter: threading.Thread | None = field(default=None, repr=False)

    def __call__(self) -> str:
        """Runs the cell, once more if it fails; returns `finished`, `stopped` or `held`.

        Raises:
            RuntimeError: when it failed every time; the failure is in the study's folder too.
        """
        folder = StudyFolder(self.folder)
        cell = folder.cell(self.cell_id)
        for _ in range(self.attempts):
            with _undisturbed():
                self._process = start(self.command, folder, cell, {})
                # A thread waits, because the signal handler that calls `checkpoint` waits as well.
                self._waiter = threading.Thread(target=self._process.wait, daemon=True)
                self._waiter.start()
            while self._waiter.is_alive():
                self._waiter.join(1.0)
            code = self._process.returncode
            if code in (0, STOPPED, HELD):
                folder.forget_failure(cell)
                return {0: "finished", STOPPED: "stopped", HELD: "held"}[code]
        message = explain(code, folder.log(cell))
        folder.record_failure(cell, message, self.attempts)
        raise RuntimeError(message)

    def checkpoint(self) -> Any:
        """Called by submitit before pre-emption or a time limit: saves, and asks to be requeued."""
        import submitit

        if self._process is not None and self._waiter is not None:
            self._process.terminate()
            self._waiter.join()
        fresh = CellJob(self.folder, self.cell_id, self.command, self.attempts)
        return submitit.helpers.DelayedSubmission(fresh)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds back the signals after which submitit calls `checkpoint`: it must know the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def submit(
    folder: StudyFolder,
    cells: Sequence[Cell],
    cluster: str,
    at_a_time: int,
    parameters: Mapping[str, Any],
    command: Command | None = None,
) -> list[Any]:
    """Submits cells as one job array.

    Args:
        folder: of the study, on a file system that the nodes share.
        cells: those to run.
        cluster: `slurm`, or `local` for submitit's own processes.
        at_a_time: jobs of the array that may run together.
        parameters: of submitit, such as `slurm_partition`, `timeout_min`, `gpus_per_node`.
        command: how to run a cell.

    Returns:
        The jobs, in the order of the cells.

    Raises:
        ValueError: submitit is missing, or does not know a parameter or the cluster.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ValueError(INSTALL) from error
    try:
        executor = submitit.AutoExecutor(
            folder.path / "jobs", cluster=cluster, slurm_max_num_timeout=REQUEUES
        )
        executor.update_parameters(name=folder.path.name, **parameters)
        if cluster == "slurm":
            executor.update_parameters(slurm_array_parallelism=at_a_time)
    except (RuntimeError, NameError, TypeError) as error:
        raise ValueError(f"submitit: {error}") from error
    where = folder.path.absolute()
    jobs = [CellJob(where, cell.id, command or Command()) for cell in cells]
    return executor.submit_array(jobs)
