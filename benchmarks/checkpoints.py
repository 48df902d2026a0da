"""What checkpoints cost: python -m benchmarks.checkpoints [--output=FILE].

1. `growth`: resident memory of a training process after 100 full checkpoints over that after 10.
2. `peak`: memory that writing a full checkpoint takes beside the run's arrays, over those.
3. `resume`: programs that a resumed run compiles, on one device and on four virtual ones: entries
   that it adds to a compilation cache that keeps every program.
4. `fsync`: seconds of waiting for the disk over those of a quickstart's training.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from absl import flags

from benchmarks.harness import define_output, launch_benchmark, show, write_results
from experiments.inputs import define_list, one_of
from experiments.quickstart import settings_of
from mst_jax.agents import Sizes, make_agent
from mst_jax.program.arrays import loop_to_arrays
from mst_jax.program.state import LoopState, init_loop
from mst_jax.recipes import make_config
from mst_jax.runs import checkpoints
from mst_jax.training import plan_run, train

PARTS = ("growth", "peak", "resume", "fsync")
PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
SLOTS = flags.DEFINE_integer(
    "slots", 1_000_000, "Filled slots of the replay buffer in part 2.", lower_bound=1
)
OUTPUT = define_output()

FEW, MANY, EVERY = 10, 100, 100  # checkpoints after which to look, and agent steps between two
OBSERVATION, ACTION = 67, 21  # of dm_control's humanoid


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if "growth" in PART.value:
            results["growth"] = growth(Path(scratch))
        if "peak" in PART.value:
            results["peak"] = peak(Path(scratch))
        if "resume" in PART.value:
            results["resume"] = [resume(Path(scratch), devices) for devices in (1, 4)]
        if "fsync" in PART.value:
            results["fsync"] = fsync(Path(scratch))
    write_results(OUTPUT.value, "benchmarks.checkpoints", results)


def growth(scratch: Path) -> dict[str, float]:
    """Megabytes of a training process, seen from outside when a checkpoint has appeared."""
    logdir = scratch / "growth"
    steps = (MANY + 1) * EVERY
    process = start(logdir, steps, 1, EVERY)
    resident = {}
    for count in (FEW, MANY):
        wait(process, lambda count=count: newest(logdir) >= count * EVERY)
        resident[count] = megabytes(process.pid, "VmRSS")
    finish(process)
    result = {
        f"megabytes_after_{FEW}": resident[FEW],
        f"megabytes_after_{MANY}": resident[MANY],
        "ratio": resident[MANY] / resident[FEW],
    }
    return show("growth", result)


def peak(scratch: Path) -> dict[str, float]:
    """Megabytes at most while a run with a full replay buffer is saved; the largest of three."""
    run = full_run(SLOTS.value)
    own = sum(array.nbytes for array in loop_to_arrays(run).values()) / 1e6
    extra = []
    for step in range(3):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
        before = megabytes(os.getpid(), "VmRSS")
        arrays = {**loop_to_arrays(run), checkpoints.CLOCK: np.int32(step)}
        checkpoints.save(scratch / "peak", checkpoints.FULL, step, arrays)
        extra.append(megabytes(os.getpid(), "VmHWM") - before)
    result = {"arrays_megabytes": own, "extra_megabytes": max(extra), "ratio": max(extra) / own}
    return show("peak", result)


def resume(scratch: Path, devices: int) -> dict[str, float]:
    """Programs that were compiled for a whole run and that a stopped and resumed one adds."""
    cache, logdir = scratch / f"programs_{devices}", scratch / f"resume_{devices}"
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    finish(start(logdir / "whole", 1_000, devices, 250, environment))
    whole = len(list(cache.glob("*-cache")))
    process = start(logdir / "parts", 1_000, devices, 250, environment)
    wait(process, lambda: newest(logdir / "parts") >= 500)
    process.send_signal(signal.SIGTERM)
    finish(process)
    (folder,) = (logdir / "parts").glob("*/*")
    finish(launch_training([f"--resume={folder}"], environment))
    added = len(list(cache.glob("*-cache"))) - whole
    return show("resume", {"devices": devices, "programs": whole, "compiled_again": added})


def fsync(scratch: Path) -> dict[str, float]:
    """Seconds in `os.fsync` while one recipe of the quickstart is trained, over all of them."""
    waited, wait_for_disk = [], os.fsync

    def timed(descriptor: int) -> None:
        before = time.perf_counter()
        wait_for_disk(descriptor)
        waited.append(time.perf_counter() - before)

    settings, _ = settings_of("mrq")
    job = plan_run(settings, scratch / "fsync")
    before = time.perf_counter()
    with mock.patch.object(os, "fsync", timed):
        train(job)
    seconds = time.perf_counter() - before
    result = {
        "calls": len(waited),
        "fsync_seconds": sum(waited),
        "training_seconds": seconds,
        "ratio": sum(waited) / seconds,
    }
    return show("fsync", result)


def full_run(slots: int) -> LoopState:
    """A run of MR.Q at a small size whose replay buffer is full of random numbers."""
    sizes = Sizes.vector(OBSERVATION, ACTION)
    agent = make_agent("mrq", make_config("mrq", "mst", "0.125x1"), sizes, slots)
    observation = np.zeros((1, OBSERVATION), np.float32)
    run = jax.jit(partial(init_loop, agent, [0], slots, sizes=sizes))(observation=observation)
    rows = np.random.default_rng(0).random(run.buffer.fields["rows"].shape, np.float32)
    filled = jax.numpy.full_like(run.buffer.filled, slots)
    buffer = dataclasses.replace(run.buffer, fields={"rows": jax.numpy.array(rows)}, filled=filled)
    return run.replace(buffer=buffer)


def start(
    logdir: Path, steps: int, seeds: int, every: int, environment: dict[str, str] | None = None
) -> subprocess.Popen:
    """Starts a small run with full checkpoints every so many steps."""
    modules = ("encoder", "critic", "actor")
    config = {
        **{f"{module}.hidden": 32 for module in modules},
        **dict.fromkeys(("zs_size", "za_size", "zsa_size"), 32),
        "batch_size": 16,
        "learning_starts": 200,
    }
    arguments = [
        *("--task=probe:point", "--recipe=mst", f"--steps={steps}", f"--seeds={seeds}"),
        *(f"--checkpoint_every={every}", f"--log_every={every}", f"--logdir={logdir}"),
        *(
            f"--eval_every={10 * every}",
            "--eval_episodes=1",
            f"--history_every={every}",
            "--diagnose_every=0",
        ),
        *(f"--config.{name}={value}" for name, value in config.items()),
    ]
    return launch_training(arguments, environment)


def launch_training(
    arguments: list[str], environment: dict[str, str] | None = None
) -> subprocess.Popen:
    """Starts `experiments.train`."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *arguments],
        stdout=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )


def wait(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; a process that ends before is an error."""
    while not condition():
        if process.poll() is not None:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        time.sleep(0.01)


def finish(process: subprocess.Popen) -> None:
    """Waits for the end of a process; a failure is an error."""
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, process.args)


def newest(logdir: Path) -> int:
    """The step of the newest full checkpoint of the only run in a folder; 0 for none."""
    steps = [checkpoints.saved_steps(run / "checkpoints", "full") for run in logdir.glob("*/*")]
    return steps[0][-1] if steps and steps[0] else 0


def megabytes(pid: int, name: str) -> float:
    """A field of /proc/PID/status: `VmRSS`, resident now, or `VmHWM`, at most so far."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"/proc/{pid}/status has no {name}")


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
