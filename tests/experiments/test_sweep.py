"""A study from the command line: killed at random moments, resumed, reported."""

import os
import random
import signal
import subprocess
import sys
import time

import launchers
import pytest

from experiments.launch.study_folder import Status, StudyFolder
from experiments.studies import STUDIES
from mst_jax.analysis import read_results
from mst_jax.runs.lock import owner
from mst_jax.training import plan_run, train


def start(module, *arguments):
    command = [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(module, *arguments):
    process = start(module, *arguments)
    output = process.communicate(timeout=900)[0]
    return process.returncode, output


def run_here(module, *arguments):
    """As `run`; its cells are processes still, and the seconds of its imports are saved."""
    ended = launchers.run(f"experiments.{module}", *arguments)
    return ended.status, ended.out + ended.err


def rows_written(folder):
    return sum(
        path.read_text().count("\n") for path in folder.path.glob("runs/*/*/seed_*/metrics.jsonl")
    )


def kill_somewhere(process, folder, rows, rng):
    """SIGKILL of the launcher, and of the cell as well or not, after so many rows and a moment."""
    kill_when(
        process,
        folder,
        lambda: rows_written(folder) >= rows,
        rng.uniform(0, 0.5),
        lambda: rng.random() < 0.7,
    )


def kill_when(process, folder, condition, seconds, kill_cell=lambda: True):
    """SIGKILL of the launcher, and of its cells if told, so many seconds after a condition."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    time.sleep(seconds)
    owners = {owner(lock.parent) for lock in folder.path.glob("runs/*/*/lock.json")}
    process.kill()
    process.communicate()
    for cell in owners - {None}:
        if kill_cell():
            os.kill(cell.pid, signal.SIGKILL)


def table(rows):
    return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 10], ids=["one", "ten"])
def test_a_sweep_killed_at_random_moments_ends_with_the_same_table(tmp_path, kills):
    flags = ["--study=scaling_width", "--size=smoke", "--seeds=1", "--steps=240", "--workers=1"]
    code, output = run_here("sweep", *flags, f"--logdir={tmp_path}", "--dry_run")
    assert code == 0, output
    assert "3 cells (3 not begun) of 240 agent steps" in output
    assert not list(tmp_path.iterdir())

    folder, rng = StudyFolder(tmp_path / "scaling_width-smoke"), random.Random(kills)
    for rows in sorted(rng.randint(0, 10) for _ in range(kills)):
        kill_somewhere(start("sweep", *flags, f"--logdir={tmp_path}"), folder, rows, rng)
    code, output = run_here("sweep", *flags, f"--logdir={tmp_path}")
    assert code == 0, output
    assert "0 failed, 0 stopped" in output
    for cell in folder.cells():
        assert folder.status(cell) is Status.FINISHED
        assert not (folder.run(cell) / "checkpoints" / "full").exists()
        alone = train(plan_run(cell.settings, tmp_path / "alone")).folder
        assert table(read_results(folder.run(cell))) == table(read_results(alone))

    code, output = run_here("sweep", *flags, f"--logdir={tmp_path}")
    assert code == 0, output
    assert "0 finished, 0 failed, 0 stopped" in output  # nothing is run twice

    code, output = run_here("report", folder.path)
    assert code == 0, output
    report = (folder.path / "report" / "report.md").read_text()
    assert "Nothing: every planned seed is in the results" in report
    assert "| probe:point | ddpg | sparse-3x1 | 1/1 (few seeds) |" in report
    assert "not decidable: 1 seeds a task are fewer than 5" in report


@pytest.mark.slow
def test_cells_that_are_killed_while_they_train_go_on_where_they_were(tmp_path):
    """SIGKILL of launcher and cell between two full checkpoints of each cell."""
    logdir, rng = tmp_path / "killed", random.Random(0)
    flags = ["--study=scaling_width", "--size=smoke", "--seeds=1", "--steps=4000", "--workers=1"]
    folder = StudyFolder(logdir / "scaling_width-smoke")
    launcher = start("sweep", *flags, f"--logdir={logdir}")
    while not (folder.path / "study.json").exists():
        time.sleep(0.02)
    killed_at = list(zip(folder.cells(), (1000, 2000, 3000), strict=True))
    for cell, step in killed_at:
        full = folder.run(cell) / "checkpoints" / "full" / f"{step:012d}"
        kill_when(launcher, folder, full.exists, rng.uniform(0, 0.2))
        while folder.status(cell) is Status.RUNNING:
            time.sleep(0.02)
        assert folder.status(cell) is Status.STOPPED, "killed on the way"
        launcher = start("sweep", *flags, f"--logdir={logdir}")
    output = launcher.communicate(timeout=900)[0]
    assert "0 failed, 0 stopped" in output
    for cell, step in killed_at:
        assert f"at step {step:,}\n" in folder.log(cell).read_text()
        alone = train(plan_run(cell.settings, tmp_path / "alone")).folder
        assert table(read_results(folder.run(cell))) == table(read_results(alone))


@pytest.mark.slow
def test_a_killed_program_of_many_cells_ends_with_the_same_table(tmp_path):
    flags = ["--study=sparsity_sweep", "--size=smoke", "--seeds=1", "--steps=240", "--workers=1"]
    code, output = run("sweep", *flags, f"--logdir={tmp_path / 'whole'}")
    assert code == 0, output
    assert "6 runs in 4 programs" in output
    logdir, rng = tmp_path / "killed", random.Random(0)
    folder = StudyFolder(logdir / "sparsity_sweep-smoke")
    for rows in (2, 8, 14):
        kill_somewhere(start("sweep", *flags, f"--logdir={logdir}"), folder, rows, rng)
    code, output = run("sweep", *flags, f"--logdir={logdir}")
    assert code == 0, output
    assert "one by one" not in output
    for cell in folder.cells():
        whole = StudyFolder(tmp_path / "whole" / "sparsity_sweep-smoke").run(cell)
        assert table(read_results(folder.run(cell))) == table(read_results(whole))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_every_study_runs_at_smoke_size_and_is_reported(tmp_path, name):
    code, output = run("sweep", f"--study={name}", "--size=smoke", f"--logdir={tmp_path}")
    assert code == 0, output
    code, output = run("report", tmp_path / f"{name}-smoke")
    assert code == 0, output
    assert "missing" not in output
    assert (tmp_path / f"{name}-smoke" / "report" / f"{name}.png").stat().st_size > 1000
