"""What all launchers share: errors in words, places, commands to paste, console scripts."""

import errno
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import inputs
from experiments.cli import command, explain, fresh_process

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    *("train", "evaluate", "export", "plot", "inspect", "video", "sweep", "report", "quickstart"),
)


def test_what_the_system_refuses_is_told_with_a_way_out():
    full = OSError(errno.ENOSPC, "No space left on device", "/a/b")
    assert explain(full) == "No space left on device: /a/b; free some space and start again"
    assert explain(OSError("handle is closed")) == "handle is closed"
    renamed = OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b")
    assert explain(renamed) == "Invalid cross-device link: /b"


def test_a_folder_that_can_be_made_is_left_as_it_is(tmp_path):
    inputs.require_writable(tmp_path / "a" / "b")
    inputs.require_output(tmp_path / "c.png", [".png"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(ValueError, match="broken is not a folder"):
        inputs.require_writable(tmp_path / "broken" / "x")


def test_printed_commands_can_be_pasted(monkeypatch):
    """Fault D13."""
    line = command("train", "--resume=an out dir/run")
    assert shlex.split(line)[1:] == ["-m", "experiments.train", "--resume=an out dir/run"]
    monkeypatch.setattr(sys, "orig_argv", ["/v/bin/python", "/v/bin/mst-train", "--steps=5"])
    assert shlex.split(command("plot", "a b")) == ["/v/bin/mst-plot", "a b"]


def test_a_folder_named_as_ours_does_not_hide_it(tmp_path):
    """Fault D12: console scripts and the processes of cells, in a user's own folder."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    place = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}

    cell = subprocess.run([*fresh_process("run_cell"), "here", "x"], env=environment, **place)
    assert cell.stderr == "error: here is not a study folder: it has no study.json\n"

    script = tmp_path / "bin" / "mst-plot"  # as pip writes it
    script.parent.mkdir()
    script.write_text("from experiments.cli import script\nscript()\n")
    installed = {**environment, "PYTHONPATH": str(ROOT)}
    plot = subprocess.run([sys.executable, script, "here"], env=installed, **place)
    assert (plot.returncode, plot.stderr) == (
        1,
        "error: here is not a run folder: it has no config.json\n",
    )


def test_there_is_a_console_script_for_every_launcher():
    """Fault D12."""
    text = (ROOT / "setup.py").read_text()
    named = re.search(r"LAUNCHERS = \(([^)]*)\)", text).group(1)
    assert sorted(re.findall(r'"(\w+)"', named)) == sorted(SCRIPTS)
    for name in SCRIPTS:
        assert (ROOT / "experiments" / f"{name}.py").is_file()
