"""Cells as a job array of SLURM, through submitit, surviving pre-emption."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.launch.grouping import Cells
from experiments.launch.process import HELD, STOPPED, Command, Silence, explain, start
from experiments.launch.study_folder import StudyFolder

ENDS = {0: "finished", STOPPED: "stopped", HELD: "held"}  # exit status -> how a job ended
REQUEUES = 1000  # a long cell may run into its time limit often
INSTALL = "submitit is missing: pip install 'mst_jax[slurm]'"


@dataclass
class GroupJob:
    """Cells of one program as a submitit job: it is pickled, sent to a node and called there."""

    folder: Path
    cell_ids: tuple[str, ...]
    command: Command
    limit: float | None = None  # seconds of silence after which cells are ended
    _process: subprocess.Popen | None = field(default=None, repr=False)
    _waiter: threading.Thread | None = field(default=None, repr=False)

    def __call__(self) -> str:
        """Runs the cells, once more one by one if they fail; `finished`, `stopped` or `held`.

        Raises:
            RuntimeError: when cells failed again; the failures are in the study's folder too.
        """
        folder = StudyFolder(self.folder)
        group = tuple(folder.cell(name) for name in self.cell_ids)
        code, _ = self._run(folder, group)
        if code in ENDS:
            return ENDS[code]
        failed = []
        for cell in group:
            code, why = self._run(folder, (cell,))
            if code in (STOPPED, HELD):
                return ENDS[code]
            if code:
                failed.append(why)
                folder.record_failure(cell, why, 2)
        if failed:
            raise RuntimeError("; ".join(failed))
        return ENDS[0]

    def _run(self, folder: StudyFolder, group: Cells) -> tuple[int, str]:
        """The exit status of a process for these cells, and why it failed if it did."""
        with _undisturbed():
            self._process = start(self.command, folder, group, {})
            # A thread waits, because the signal handler that calls `checkpoint` waits as well.
            self._waiter = threading.Thread(target=self._process.wait, daemon=True)
            self._waiter.start()
        silence = Silence(folder, group, self.limit)
        while self._waiter.is_alive():
            self._waiter.join(1.0)
            if news := silence.news():
                print(news, flush=True)
            if silence.overdue:
                silence.end(self._process)
        if self._process.returncode == 0:
            for cell in group:
                folder.forget_failure(cell)
        elif silence.overdue:
            return 1, silence.reason()  # whatever it said when it was asked to stop
        return self._process.returncode, explain(self._process.returncode, folder.log(group[0]))

    def checkpoint(self) -> Any:
        """Called by submitit before pre-emption or a time limit: saves, and asks to be requeued."""
        import submitit

        if self._process is not None and self._waiter is not None:
            self._process.terminate()
            self._waiter.join()
        fresh = GroupJob(self.folder, self.cell_ids, self.command, self.limit)
        return submitit.helpers.DelayedSubmission(fresh)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds back the signals after which submitit calls `checkpoint`: it must know the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_executor(
    folder: StudyFolder, cluster: str, at_a_time: int, parameters: Mapping[str, Any]
) -> Any:
    """Submitit's executor of job arrays; nothing is written yet.

    Args:
        folder: of the study, on a file system that the nodes share.
        cluster: `slurm`, or `local` for submitit's own processes.
        at_a_time: jobs of an array that may run together.
        parameters: of submitit, such as `slurm_partition`, `timeout_min`, `gpus_per_node`.

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
    except (RuntimeError, NameError, TypeError, AssertionError) as error:
        raise ValueError(f"submitit: {error}") from error
    return executor


def submit(
    executor: Any,
    folder: StudyFolder,
    groups: Sequence[Cells],
    command: Command | None = None,
    limit: float | None = None,
) -> list[Any]:
    """Submits cells as one job array, a job for each program.

    Args:
        executor: as `make_executor` gives it.
        folder: of the study.
        groups: the cells to run; those of a group share a program.
        command: how to run cells.
        limit: seconds without a sign of life after which cells are ended; None for any number.

    Returns:
        The jobs, in the order of the groups.

    Raises:
        ValueError: this package is where jobs could not import it from.
    """
    where = folder.path.absolute()
    jobs = [
        GroupJob(where, tuple(cell.id for cell in group), command or Command(), limit)
        for group in groups
    ]
    with _importable():
        return executor.submit_array(jobs)


@contextmanager
def _importable() -> Iterator[None]:
    """Lets jobs, which inherit the environment, import this package wherever they are started.

    It need not be installed, and the folder they start in may hold another one of its name.
    """
    root = str(Path(__file__).resolve().parents[2])
    if os.pathsep in root:
        raise ValueError(
            f"jobs cannot import from {root}: move it to a path without {os.pathsep!r}"
        )
    others = filter(None, [os.environ.get("PYTHONPATH")])
    wanted = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([root, *others])}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
