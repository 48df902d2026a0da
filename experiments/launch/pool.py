"""Cells in local processes, several at a time, each on a device of its own where there are GPUs."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.launch.grouping import Cells, title
from experiments.launch.process import HELD, STOPPED, Command, Silence, explain, start
from experiments.launch.study_folder import Status, StudyFolder
from experiments.studies import Cell
from mst_jax.runs.lock import owner
from mst_jax.runs.signals import on_stop_signal

ATTEMPTS = 2  # what failed is tried once more, every cell of a program by itself
PATIENCE = 2.0  # seconds before cells that another process holds are looked at again


class Summary(NamedTuple):
    """How a launch ended, as lists of cell names; `failed` has messages."""

    finished: list[str]
    failed: dict[str, str]
    stopped: list[str]


class _Running(NamedTuple):
    process: subprocess.Popen
    group: Cells
    attempt: int
    device: str | None
    began: float
    silence: Silence


class _Waiting(NamedTuple):
    group: Cells
    attempt: int = 1
    not_before: float = 0.0
    silence: Silence | None = None  # of the process that is at these cells, if it is not ours


def run_pool(
    folder: StudyFolder,
    groups: Sequence[Cells],
    workers: int,
    devices: Sequence[str] = (),
    report: Callable[[str], None] = print,
    command: Command | None = None,
    limit: float | None = None,
) -> Summary:
    """Runs all cells that are not finished; failures do not stop the others.

    SIGTERM, SIGINT and SIGHUP ask the running cells to write checkpoints, and end the launch after
    them. A second signal ends the cells at once, a third one kills them.

    Args:
        folder: of the study.
        groups: the cells to run, in order; those of a group share a program.
        workers: processes at a time.
        devices: values of CUDA_VISIBLE_DEVICES, given out in turn; empty where there is no GPU.
        report: takes progress lines.
        command: how to run cells.
        limit: seconds without a sign of life after which a cell has failed; None for any number.

    Returns:
        How every cell ended.
    """
    pool = _Pool(folder, command or Command(), devices, report, sum(map(len, groups)), limit)
    waiting = deque(_Waiting(group) for group in groups)
    signals: list[int] = []
    heard = 0
    with on_stop_signal(signals.append):
        while waiting or pool.running:
            if len(signals) > heard:
                heard = len(signals)
                pool.stop([cell for task in waiting for cell in task.group], kill=heard > 2)
                waiting.clear()
            for _ in range(len(waiting)):
                if len(pool.running) >= workers:
                    break
                pool.begin(waiting.popleft(), waiting)
            pool.watch()
            pool.collect(waiting)
            time.sleep(0.05)
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
        limit: float | None,
    ) -> None:
        self.running: list[_Running] = []
        self.summary = Summary([], {}, [])
        self._folder, self._command, self._report = folder, command, report
        self._devices, self._total, self._launched = devices, total, time.time()
        self._stopping, self._limit = False, limit

    def begin(self, task: _Waiting, waiting: deque[_Waiting]) -> None:
        """Starts the cells of a group that need it, or puts them back when others are at them."""
        group = tuple(cell for cell in task.group if self._needed(cell, task.attempt))
        if not group:
            return
        states = [self._folder.status(cell) for cell in group]
        if Status.RUNNING in states or time.monotonic() < task.not_before:
            self._wait(_Waiting(group, *task[1:]), waiting)
            return
        device = self._free_device()
        environment = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        process = start(self._command, self._folder, group, environment, os.getpid())
        silence = Silence(self._folder, group, self._limit)
        self.running.append(
            _Running(process, group, task.attempt, device, time.monotonic(), silence)
        )
        again = f" (attempt {task.attempt})" if task.attempt > 1 else ""
        resumed = " resumed" if Status.STOPPED in states else ""
        self._report(f"{title(group)}:{resumed or ' started'}{again}")

    def _wait(self, task: _Waiting, waiting: deque[_Waiting]) -> None:
        """Puts cells back that another process is at, unless it has been silent for too long."""
        silence = task.silence or Silence(self._folder, task.group, self._limit)
        news = silence.news()
        if news or silence.overdue:
            owners = [owner(self._folder.run(cell)) for cell in task.group]
            found = [f"{held_by} holds it" for held_by in owners if held_by]
            who = found[0] if found else "another process holds it"
            if silence.overdue:
                for cell in task.group:
                    self._fail(cell, f"{who}, and {silence.reason()}")
                return
            self._report(f"{title(task.group)}: waiting; {who}: {news}")
        later = max(task.not_before, time.monotonic() + PATIENCE)
        waiting.append(_Waiting(task.group, task.attempt, later, silence))

    def watch(self) -> None:
        """Tells of processes that show nothing, and ends them after the limit."""
        for run in self.running:
            if news := run.silence.news():
                self._report(f"{title(run.group)}: {news}")
            if run.silence.overdue:
                run.silence.end(run.process)

    def collect(self, waiting: deque[_Waiting]) -> None:
        """Looks which processes have ended, and why."""
        for run in [run for run in self.running if run.process.poll() is not None]:
            self.running.remove(run)
            code, name = run.process.returncode, title(run.group)
            if code == 0:
                for cell in run.group:
                    self._folder.forget_failure(cell)
                    self._finish(cell, f"finished in {time.monotonic() - run.began:.0f} s")
            elif self._stopping or (code == STOPPED and not run.silence.overdue):
                self.summary.stopped.extend(cell.id for cell in run.group)
                self._report(f"{name}: stopped")
            elif code == HELD:
                self._wait(_Waiting(run.group, run.attempt), waiting)
            elif run.attempt < ATTEMPTS:
                self._report(f"{name}: failed, trying again: {self._why(run)}")
                waiting.extend(_Waiting((cell,), run.attempt + 1) for cell in run.group)
            else:
                (cell,) = run.group  # a second attempt has one cell
                self._folder.record_failure(cell, self._why(run), run.attempt)
                self._fail(cell, self._why(run))

    def stop(self, not_begun: Sequence[Cell], kill: bool = False) -> None:
        """Asks all running cells to stop, or kills them; the others will not be begun."""
        self._stopping = True
        self._report(f"stopping {len(self.running)} cells; the next launch resumes them")
        self.summary.stopped.extend(cell.id for cell in not_begun)
        for run in self.running:
            (run.process.kill if kill else run.process.terminate)()

    def _why(self, run: _Running) -> str:
        if run.silence.overdue:
            return run.silence.reason()
        return explain(run.process.returncode, self._folder.log(run.group[0]))

    def _needed(self, cell: Cell, attempt: int) -> bool:
        """Whether a cell is still to be run; one that others finished or failed is told so."""
        if self._folder.status(cell) is Status.FINISHED:
            self._finish(cell, "was finished already")
            return False
        failure = self._folder.failure(cell)
        if failure and failure["time"] > self._launched and attempt == 1:
            self._fail(cell, failure["message"])  # another launcher tried it meanwhile
            return False
        return True

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
