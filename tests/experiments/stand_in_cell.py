"""Cells that take no time: real lock, exit statuses and files, but instead of training it waits.

What it does depends on the variant: `fails`, `fails_once`, `dies` (SIGKILL), `preempted` (the first
time it waits to be stopped), `sleeps` (until it is stopped), `frozen` (SIGSTOP), or it finishes.
"""

import os
import signal
import sys
import time
from pathlib import Path

from mst_jax.runs.lock import HeldError, held

SECONDS = 0.3


def main(folder: Path, cell: str) -> int:
    run = folder / "runs" / cell.replace("--", "/")
    try:
        with held(run):
            if (run / "fingerprint.txt").exists():
                return 0
            (run / "started").open("a").write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
            return work(run, cell)
    except HeldError:
        return 76


def work(run: Path, cell: str) -> int:
    attempts = len((run / "started").read_text().splitlines())
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    waits_for_it = "-sleeps-" in cell or ("-preempted-" in cell and attempts == 1)
    if "-frozen-" in cell:
        os.kill(os.getpid(), signal.SIGSTOP)
    end = time.monotonic() + (120.0 if waits_for_it else SECONDS)
    while time.monotonic() < end:
        if stopped:
            return 75
        time.sleep(0.01)
    if "-fails-" in cell or ("-fails_once-" in cell and attempts == 1):
        sys.exit("error: the disk is full")
    if "-dies-" in cell:
        os.kill(os.getpid(), signal.SIGKILL)
    (run / "fingerprint.txt").write_text("f" * 64 + "\n")
    return 0


if __name__ == "__main__":
    names = [name for name in sys.argv[2:] if not name.startswith("--")]
    sys.exit(max(main(Path(sys.argv[1]), name) for name in names))
