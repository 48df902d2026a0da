"""The pool and the study folder, on cells that take no time; real ones: test_sweep.py."""

import dataclasses
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from absl import flags
from small_runs import small_settings

from experiments import run_cell
from experiments.launch import pool, process
from experiments.launch.cluster import make_executor, submit
from experiments.launch.pool import run_pool
from experiments.launch.process import ATTEMPT, Command, Silence, explain
from experiments.launch.study_folder import Status, StudyFolder, is_begun
from experiments.studies import Cell
from mst_jax.runs.config_file import write_settings
from mst_jax.runs.lock import held

STAND_IN = Command((sys.executable, str(Path(__file__).with_name("stand_in_cell.py"))))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
)


def cell(variant, seed=0, **changes):
    settings = small_settings(seed=seed, seeds=1, **changes)
    return Cell({"variant": variant}, dataclasses.replace(settings, recipe=variant))


def make_folder(tmp_path, *variants):
    folder = StudyFolder(tmp_path / "study")
    return folder, folder.join("s", "smoke", [cell(name) for name in variants], "command")


def alone(cells):
    """Each cell as a program of its own."""
    return [(one,) for one in cells]


def starts(folder, one):
    """What each process that ran a cell said: its device."""
    path = folder.run(one) / "started"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
def test_finished_cells_are_skipped_and_failures_stop_nobody(tmp_path):
    folder, cells = make_folder(tmp_path, "good", "fails", "fails_once", "dies", "other")
    lines = []
    summary = run_pool(folder, alone(cells), 2, ("4", "7"), lines.append, STAND_IN)
    done, fails, once, dies, other = cells
    assert sorted(summary.finished) == sorted([done.id, once.id, other.id])
    assert summary.failed.keys() == {fails.id, dies.id}
    assert summary.failed[fails.id].startswith("error: the disk is full; ")
    assert "SIGKILL (out of memory?)" in summary.failed[dies.id]
    assert [len(starts(folder, one)) for one in cells] == [1, 2, 2, 2, 1]
    assert {device for one in cells for device in starts(folder, one)} == {"4", "7"}
    assert folder.status(fails) is Status.FAILED
    assert folder.failure(fails)["attempts"] == 2
    assert folder.status(once) is Status.FINISHED
    assert folder.failure(once) is None

    again = run_pool(folder, alone(cells), 2, (), lines.append, STAND_IN)
    assert again.failed.keys() == {fails.id, dies.id}
    assert [len(starts(folder, one)) for one in cells] == [1, 4, 2, 4, 1]


@pytest.mark.slow
def test_cells_of_a_program_that_fails_are_tried_by_themselves(tmp_path):
    folder, cells = make_folder(tmp_path, "good", "fails", "other")
    lines = []
    summary = run_pool(folder, [tuple(cells)], 1, (), lines.append, STAND_IN)
    good, fails, other = cells
    assert sorted(summary.finished) == sorted([good.id, other.id])
    assert summary.failed.keys() == {fails.id}
    assert lines[0] == f"{good.id} and 2 more: started"
    assert lines[1].startswith(f"{good.id} and 2 more: failed, trying again: error: the disk is")
    assert [folder.status(one).value for one in cells] == ["finished", "failed", "finished"]


@pytest.mark.slow
def test_two_launchers_on_one_folder_run_no_cell_twice(tmp_path):
    folder, cells = make_folder(tmp_path, *(f"v{i}" for i in range(6)))
    script = (
        "import sys; from pathlib import Path\n"
        "from experiments.launch.pool import run_pool\n"
        "from experiments.launch.process import Command\n"
        "from experiments.launch.study_folder import StudyFolder\n"
        "folder = StudyFolder(Path(sys.argv[1]))\n"
        "groups = [(cell,) for cell in folder.cells()]\n"
        "summary = run_pool(folder, groups, 2, (), print, Command(sys.argv[2:]))\n"
        "assert len(summary.finished) == 6, summary\n"
    )
    command = [sys.executable, "-c", script, str(folder.path), *STAND_IN.program]
    launchers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [launcher.communicate(timeout=300)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert [len(starts(folder, one)) for one in cells] == [1] * 6


def test_a_signal_stops_the_cells_and_the_next_launch_goes_on(tmp_path):
    folder, cells = make_folder(tmp_path, "a", "b", "c")

    def interrupt():
        while not starts(folder, cells[0]):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    summary = run_pool(folder, alone(cells), 1, (), lambda _: None, STAND_IN)
    thread.join()
    assert (summary.finished, summary.failed) == ([], {})
    assert sorted(summary.stopped) == sorted(one.id for one in cells)
    assert [folder.status(one) for one in cells] == [Status.STOPPED, Status.MISSING, Status.MISSING]
    again = run_pool(folder, alone(cells), 2, (), lambda _: None, STAND_IN)
    assert len(again.finished) == 3


@pytest.fixture
def impatient(monkeypatch):
    """Seconds instead of minutes."""
    monkeypatch.setattr(process, "NOTICE", 0.2)
    monkeypatch.setattr(process, "LOOK", 0.05)
    monkeypatch.setattr(process, "GRACE", 0.3)
    monkeypatch.setattr(pool, "PATIENCE", 0.1)
    monkeypatch.setattr(pool, "ATTEMPTS", 1)


@pytest.mark.slow
def test_a_silent_cell_is_told_and_ended_after_the_limit(tmp_path, impatient):
    """Fault B4: one that sleeps, and one that SIGTERM does not reach."""
    folder, cells = make_folder(tmp_path, "sleeps", "frozen")
    lines = []
    summary = run_pool(folder, alone(cells), 2, (), lines.append, STAND_IN, limit=12.0)
    assert summary.failed.keys() == {one.id for one in cells}
    for one in cells:
        assert "showed nothing for 12 s (--cell_timeout)" in summary.failed[one.id]
        assert [folder.status(one), len(starts(folder, one))] == [Status.FAILED, 1]
        told = [line for line in lines if line.startswith(f"{one.id}: nothing new for ")]
        assert 2 <= len(told) <= 7  # after 0.2 s, 0.4 s, 0.8 s and so on


def test_a_third_signal_kills_what_no_other_reaches(tmp_path):
    folder, (one,) = make_folder(tmp_path, "frozen")

    def insist():
        for _ in range(3):
            while not starts(folder, one):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)

    thread = threading.Thread(target=insist)
    thread.start()
    summary = run_pool(folder, [(one,)], 1, (), lambda _: None, STAND_IN)
    thread.join()
    assert (summary.stopped, summary.failed) == ([one.id], {})


def test_a_cell_that_is_written_to_is_not_silent(tmp_path, impatient):
    folder, (one,) = make_folder(tmp_path, "a")
    silence = Silence(folder, [one], limit=0.5)
    rows = folder.run(one) / "seed_0" / "metrics.jsonl"
    rows.parent.mkdir(parents=True)
    for number in range(10):
        time.sleep(0.1)
        rows.write_text("row\n" * number)
        assert not silence.overdue
    time.sleep(0.6)
    assert silence.overdue
    assert silence.news().startswith("nothing new for ")
    assert silence.news() is None  # until twice as long has passed


def test_a_launcher_says_whom_it_waits_for(tmp_path, impatient):
    """Fault B4: cells that another process is at."""
    folder, cells = make_folder(tmp_path, "a", "good")
    lines = []
    with held(folder.run(cells[0])):
        summary = run_pool(folder, alone(cells), 1, (), lines.append, STAND_IN, limit=10.0)
    assert summary.finished == [cells[1].id]
    who = f"process {os.getpid()} on {socket.gethostname()} holds it"
    assert summary.failed[cells[0].id].startswith(f"{who}, and it showed nothing for 10 s")
    assert any(f"{cells[0].id}: waiting; {who}: nothing new for" in line for line in lines)
    assert folder.failure(cells[0]) is None  # whoever holds it may still finish it


def test_a_folder_takes_more_seeds_but_no_other_settings(tmp_path):
    folder, cells = make_folder(tmp_path, "a", "b")
    merged = folder.join("s", "smoke", [cell("a"), cell("a", seed=1)], "another command")
    assert [one.id for one in merged] == [cells[0].id, cells[1].id, cell("a", seed=1).id]
    assert folder.manifest()["commands"] == ["command", "another command"]
    assert folder.cells() == merged
    with pytest.raises(ValueError, match="steps=240, not 999; choose another logdir"):
        folder.join("s", "smoke", [cell("a", steps=999)], "")
    with pytest.raises(ValueError, match="holds s at size smoke, not t at smoke"):
        folder.join("t", "smoke", [cell("a")], "")
    with pytest.raises(ValueError, match="no cell 'x'"):
        folder.cell("x")
    with pytest.raises(ValueError, match="not a study folder"):
        StudyFolder(tmp_path).cells()
    (folder.path / "study.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        folder.cells()


def test_a_run_that_was_killed_before_it_wrote_its_settings_begins_anew(tmp_path):
    settings = cell("a").settings
    run = tmp_path / "run"
    assert not is_begun(run, settings)
    run.mkdir()
    (run / "config.json").touch()
    assert not is_begun(run, settings)
    write_settings(run, settings)
    assert is_begun(run, settings)
    with pytest.raises(ValueError, match="is there with recipe=a, not b"):
        is_begun(run, cell("b").settings)
    (run / "config.json").write_text("")
    (run / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        is_begun(run, settings)


def test_the_reason_of_a_failure_is_that_of_its_last_process(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(f"{ATTEMPT}\nerror: old\n{ATTEMPT}\nTraceback\nMemoryError: new\n\n")
    assert explain(1, log) == f"MemoryError: new; {log}"
    log.write_text(f"{ATTEMPT}\n")
    assert explain(1, log).startswith("it printed nothing")


def run_cell_main(folder, one):
    """What `python -m experiments.run_cell` ends with, run here."""
    flags.FLAGS(["run_cell"])
    with pytest.raises(SystemExit) as ended:
        run_cell.main(["run_cell", str(folder.path), one.id])
    return ended.value.code


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    folder, (one,) = make_folder(tmp_path, "a")

    def full(program):
        folder = program.jobs[0].folder
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "metrics"))

    monkeypatch.setattr(run_cell, "train_together", full)
    message = run_cell_main(folder, one)
    assert message.startswith("error: No space left on device: ")
    assert message.endswith("metrics; free some space and start again")
    assert list(folder.path.glob("runs/**/lock.json")) == []


def test_a_corrupt_cell_is_told_in_one_line(tmp_path):
    folder, (one,) = make_folder(tmp_path, "a")
    run = folder.run(one)
    run.mkdir(parents=True)
    write_settings(run, one.settings)
    broken = run / "checkpoints" / "full" / "000000000060"
    broken.mkdir(parents=True)
    (broken / "manifest.json").write_text("{")
    with pytest.warns(UserWarning, match="cannot be read"):
        message = run_cell_main(folder, one)
    assert "error: no intact full checkpoint in" in message
    (run / "config.json").write_text("{")
    assert "cannot be read as a run's settings" in run_cell_main(folder, one)


def test_a_cell_that_somebody_runs_is_left_alone(tmp_path):
    folder, (one,) = make_folder(tmp_path, "a")
    with held(folder.run(one)):
        assert folder.status(one) is Status.RUNNING
        assert run_cell_main(folder, one) == 76
    assert folder.status(one) is Status.MISSING
    assert "has no cell" in run_cell_main(folder, cell("b"))


def test_jobs_of_submitit_finish_fail_and_are_requeued(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    (tmp_path / "experiments").mkdir()  # fault D12: jobs start here, and it is not ours
    (tmp_path / "experiments" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    folder, cells = make_folder(tmp_path, "good", "fails", "preempted")
    jobs = submit(
        make_executor(folder, "local", 3, {"timeout_min": 5}), folder, alone(cells), STAND_IN
    )
    good, fails, preempted = jobs
    while not starts(folder, cells[2]):
        assert not preempted.done(), preempted.stderr()
        time.sleep(0.05)
    controller = preempted._process.pid
    (task,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # what SLURM sends before it takes a node away
    assert good.result() == "finished"
    assert preempted.result() == "finished"
    with pytest.raises(Exception, match="the disk is full"):
        fails.result()
    assert folder.failure(cells[1])["attempts"] == 2
    assert [folder.status(one) for one in cells] == [
        Status.FINISHED,
        Status.FAILED,
        Status.FINISHED,
    ]
    assert len(starts(folder, cells[2])) == 2


def test_submitit_is_asked_for_only_when_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"pip install 'mst_jax\[slurm\]'"):
        make_executor(StudyFolder(tmp_path), "slurm", 1, {})
