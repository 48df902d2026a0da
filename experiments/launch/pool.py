"""Cells in local processes, several at a time, each on a device of its own where there are GPUs."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.launch.process import HELD, STOPPED, Command, explain, start
from experiments.launch.study_folder import Status, StudyFolder
from experiments.studies import Cell

ATTEMPTS = 2  # a failed cell is tried once more
PATIENCE = 2.0  # seconds before a cell that another process holds is looked at again


class Summary(NamedTuple):
    """How a launch ended, as lists of cell names; `failed` has messages."""

    finished: list[str]
    failed: dict[str, str]
    stopped: list[str]


class _Running(NamedTuple):
    process: subprocess.Popen
    cell: Cell
    attempt: int
    device: str | None
    began: float


class _Waiting(NamedTuple):
    cell: Cell
    attempt: int = 1
    not_before: float = 0.0


def run_pool(
    folder: StudyFolder,
    cells: Sequence[Cell],
    workers: int,
    devices: Sequence[str] = (),
    report: Callable[[str], None] = print,
    command: Command | None = None,
) -> Summary:
    """Runs all cells that are not finished; failures do not stop the others.

    SIGTERM and SIGINT ask the running cells to write checkpoints, and end the launch after them.

    Args:
        folder: of the study.
        cells: those to run, in order.
        workers: processes at a time.
        devices: values of CUDA_VISIBLE_DEVICES, given out in turn; empty where there is no GPU.
        report: takes progress lines.
        command: how to run a cell.

    Returns:
        How every cell ended.
    """
    pool = _Pool(folder, command or Command(), devices, report, len(cells))
    waiting = deque(_Waiting(cell) for cell in cells)
    signals: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _: signals.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        heard = 0
        while waiting or pool.running:
            if len(signals) > heard:  # a second signal ends the cells at once
                heard = len(signals)
                pool.stop([task.cell for task in waiting])
                waiting.clear()
            for _ in range(len(waiting)):
                if len(pool.running) >= workers:
                    break
                pool.begin(waiting.popleft(), waiting)
            pool.collect(waiting)
            time.sleep(0.05)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return pool.summary


class _Pool:
    """The processes that run now, and how the others ended."""

    def __init__(
        self,
        folder: StudyFolder,
        command: Command,
        devices: Sequence[str],
        report: Callable[[str], None],
        total: int,
    ) -> None:
        self.running: list[_Running] = []
        self.summary = Summary([], {}, [])
        self._folder, self._command, self._report = folder, command, report
        self._devices, self._total, self._launched = devices, total, time.time()
        self._stopping = False

    def begin(self, task: _Waiting, waiting: deque[_Waiting]) -> None:
        """Starts a cell, or puts it back when another process is at it."""
        cell = task.cell
        status = self._folder.status(cell)
        if status is Status.FINISHED:
            self._finish(cell, "was finished already")
            return
        failure = self._folder.failure(cell)
        if failure and failure["time"] > self._launched and task.attempt == 1:
            self._fail(cell, failure["message"])  # another launcher tried it meanwhile
            return
        if status is Status.RUNNING or time.monotonic() < task.not_before:
            later = max(task.not_before, time.monotonic() + PATIENCE)
            waiting.append(task._replace(not_before=later))
            return
        device = self._free_device()
        environment = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        process = start(self._command, self._folder, cell, environment, os.getpid())
        self.running.append(_Running(process, cell, task.attempt, device, time.monotonic()))
        again = f" (attempt {task.attempt})" if task.attempt > 1 else ""
        resumed = " resumed" if status is Status.STOPPED else ""
        self._report(f"{cell.id}:{resumed or ' started'}{again}")

    def collect(self, waiting: deque[_Waiting]) -> None:
        """Looks which cells have ended, and why."""
        for run in [run for run in self.running if run.process.poll() is not None]:
            self.running.remove(run)
            code, cell = run.process.returncode, run.cell
            if code == 0:
                self._folder.forget_failure(cell)
                self._finish(cell, f"finished in {time.monotonic() - run.began:.0f} s")
            elif code == STOPPED or self._stopping:
                self.summary.stopped.append(cell.id)
                self._report(f"{cell.id}: stopped")
            elif code == HELD:
                waiting.append(_Waiting(cell, run.attempt, time.monotonic() + PATIENCE))
            elif run.attempt < ATTEMPTS:
                self._report(f"{cell.id}: failed, trying again: {self._why(run)}")
                waiting.append(_Waiting(cell, run.attempt + 1))
            else:
                self._folder.record_failure(cell, self._why(run), run.attempt)
                self._fail(cell, self._why(run))

    def stop(self, not_begun: Sequence[Cell]) -> None:
        """Asks all running cells to stop; the others will not be begun."""
        self._stopping = True
        self._report(f"stopping {len(self.running)} cells; the next launch resumes them")
        self.summary.stopped.extend(cell.id for cell in not_begun)
        for run in self.running:
            run.process.terminate()

    def _why(self, run: _Running) -> str:
        return explain(run.process.returncode, self._folder.log(run.cell))

    def _free_device(self) -> str | None:
        if not self._devices:
            return None
        loads = [run.device for run in self.running]
        return min(self._devices, key=loads.count)

    def _finish(self, cell: Cell, how: str) -> None:
        self.summary.finished.append(cell.id)
        self._report(f"[{len(self.summary.finished)}/{self._total}] {cell.id}: {how}")

    def _fail(self, cell: Cell, message: str) -> None:
        self.summary.failed[cell.id] = message
        self._report(f"{cell.id}: FAILED: {message}")
