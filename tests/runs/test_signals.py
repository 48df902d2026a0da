"""A closed terminal asks a program to stop in order, unless it was told to ignore that."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import signal, sys, time
from mst_jax.runs.signals import on_stop_signal
told = []
with on_stop_signal(lambda name: (told.append(name.name), print(name.name, flush=True))):
    open(sys.argv[1] + ".ready", "w").close()
    end = time.monotonic() + float(sys.argv[2])
    while not told and time.monotonic() < end:
        time.sleep(0.01)
    print("saving", flush=True)
open(sys.argv[1], "w").write(" ".join(told))
"""


def run_in_terminal(path, seconds, ignored):
    """Starts the script as the leader of a terminal's session and closes the terminal."""
    ours, theirs = pty.openpty()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    # A session's leader gets the first terminal it opens as its own.
    script = f"import os; os.open({os.ttyname(theirs)!r}, os.O_RDWR)\n{SCRIPT}"
    command = [sys.executable, "-c", script, str(path), str(seconds)]
    output = subprocess.DEVNULL if ignored else theirs  # nohup redirects it too
    process = subprocess.Popen(
        command, stdin=theirs, stdout=output, stderr=output, start_new_session=True
    )
    signal.signal(signal.SIGHUP, before)
    os.close(theirs)
    while not path.with_suffix(".ready").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.close(ours)
    return process.wait(timeout=60)


@pytest.mark.parametrize("ignored", [False, True], ids=["terminal", "nohup"])
def test_a_closed_terminal_asks_to_stop_unless_nohup_was_given(tmp_path, ignored):
    """Fault B5; what is printed afterwards must not end the program."""
    path = tmp_path / "told"
    assert run_in_terminal(path, 0.5 if ignored else 60.0, ignored) == 0
    assert path.read_text() == ("" if ignored else "SIGHUP")
