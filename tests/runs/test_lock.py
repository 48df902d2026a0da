"""A folder has one owner; when it is gone, one of those that want it takes it over."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mst_jax.runs.lock import LOCK, HeldError, exclusive, held, owner

HERE = socket.gethostname()


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def test_a_folder_is_held_by_one_and_names_its_owner(tmp_path):
    with held(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        assert owner(tmp_path).host == HERE
        told = f"in use by process {os.getpid()} on {HERE}; wait"
        with pytest.raises(HeldError, match=told), held(tmp_path):
            raise AssertionError("held twice")
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path):
        pass


def test_a_folder_that_was_made_for_it_goes_again_unless_it_was_used(tmp_path):
    folder = tmp_path / "task" / "run"
    with held(folder):
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    with held(folder):
        (folder / "config.json").touch()
    assert folder.is_dir()


def test_an_owner_that_died_is_followed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = {"pid": gone.pid, "host": HERE, "started": "1"}
    reused = {"pid": os.getpid(), "host": HERE, "started": "1"}
    for content in (json.dumps(dead), json.dumps(reused), "", "{", "[1]", "\0\0"):
        (tmp_path / LOCK).write_text(content)
        assert owner(tmp_path) is None
        with held(tmp_path):
            assert owner(tmp_path).pid == os.getpid()


def test_an_owner_whose_parent_does_not_ask_about_it_is_gone(tmp_path):
    """In a container without an init process, killed processes stay as zombies for ever."""
    script = f"from pathlib import Path\nfrom mst_jax.runs.lock import held\nimport time\n\
with held(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    assert owner(tmp_path).pid == process.pid
    process.kill()
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert owner(tmp_path) is None
    process.communicate()


def test_an_owner_on_another_machine_counts_until_it_falls_silent(tmp_path):
    lock = tmp_path / LOCK
    lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "1"}))
    with pytest.raises(HeldError, match="process 1 on elsewhere"), held(tmp_path):
        pass
    os.utime(lock, (time.time() - 3600,) * 2)
    with held(tmp_path):
        pass


@pytest.mark.parametrize(
    ("job", "restart", "free"),
    [("7", "1", True), ("7", None, False), ("8", "1", False), (None, None, False)],
)
def test_a_requeued_slurm_job_does_not_wait_for_itself(tmp_path, monkeypatch, job, restart, free):
    """Its node died a moment ago, so the lock looks alive; another process of the job must wait."""
    left = {"pid": 1, "host": "elsewhere", "started": "1", "job": "7", "restart": "0"}
    (tmp_path / LOCK).write_text(json.dumps(left))
    for name, value in (("SLURM_JOB_ID", job), ("SLURM_RESTART_COUNT", restart)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert (owner(tmp_path) is None) == free
    if free:
        with held(tmp_path):
            assert str(owner(tmp_path)).endswith(f"{HERE} (SLURM job 7)")
    else:
        told = r"process 1 on elsewhere \(SLURM job 7\)"
        with pytest.raises(HeldError, match=told), held(tmp_path):
            pass


def test_who_was_taken_over_does_not_let_go_for_the_other(tmp_path):
    other = {"pid": 1, "host": "elsewhere", "started": "1"}
    with held(tmp_path):
        (tmp_path / LOCK).write_text(json.dumps(other))
    assert json.loads((tmp_path / LOCK).read_text()) == other


def test_only_one_of_many_takes_over_a_stale_lock(tmp_path):
    dead = {"pid": 2**22 + 1, "host": HERE, "started": "1"}
    (tmp_path / LOCK).write_text(json.dumps(dead))
    wins, barrier = [], threading.Barrier(8)

    def compete():
        barrier.wait()
        try:
            with held(tmp_path):
                wins.append(1)
                time.sleep(0.3)
        except HeldError:
            pass

    run_all([threading.Thread(target=compete) for _ in range(8)])
    assert len(wins) == 1


def test_exclusive_sections_exclude_each_other(tmp_path):
    """The guard is deleted by each that leaves, while others wait for it."""
    inside, most = [], []

    def enter():
        for _ in range(5):
            with exclusive(tmp_path / "guard"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    run_all([threading.Thread(target=enter) for _ in range(6)])
    assert most == [1] * 30
    assert list(tmp_path.iterdir()) == []


def run_all(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
