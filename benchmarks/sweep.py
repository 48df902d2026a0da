"""What it costs to run many runs: python -m benchmarks.sweep [--output=FILE].

1. `programs`: runs that differ in seed and sparsity, all in one program, against a process for each
   run, as many at a time as there are cores. Whole processes are timed, starting and compiling
   included; all processes of a measurement share a fresh compilation cache, as in a sweep.
2. `devices`: the seeds of a program over several virtual devices of this machine's processor.
3. `launcher`: what a sweep takes for each cell beside training it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.harness import define_output, launch_benchmark, show, write_results
from experiments.inputs import define_list, one_of, positive_integer
from experiments.launch.study_folder import StudyFolder
from mst_jax.runs import read_metrics

PARTS = ("programs", "devices", "launcher")
PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
RUNS = define_list("runs", [1, 2, 4, 8, 16, 32], positive_integer, "Numbers of runs in part 1.")
DEVICES = define_list("devices", [1, 2, 4], positive_integer, "Virtual devices in part 2.")
SEEDS = flags.DEFINE_integer("seeds", 8, "Seeds in part 2.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 2_000, "Agent steps of every run.", lower_bound=1)
WIDTH = flags.DEFINE_integer("width", 64, "Hidden and latent sizes of the networks.", lower_bound=1)
OUTPUT = define_output()

LEARNING_STARTS, BATCH = 250, 64
SPARSITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if "programs" in PART.value:
            results["programs"] = [programs(n, Path(scratch)) for n in RUNS.value]
        if "devices" in PART.value:
            results["devices"] = [devices(n, Path(scratch)) for n in DEVICES.value]
        if "launcher" in PART.value:
            results["launcher"] = launcher(Path(scratch))
    write_results(OUTPUT.value, "benchmarks.sweep", results)


def programs(count: int, scratch: Path) -> dict[str, float]:
    """Seed-updates per second of `count` runs, in one program and in a process each."""
    sparsities = SPARSITIES[: min(count, len(SPARSITIES))]
    seeds = count // len(sparsities)
    together = [train(sparsities, 0, seeds, scratch / f"together_{count}")]
    alone = [
        train([sparsity], seed, 1, scratch / f"alone_{count}")
        for sparsity in sparsities
        for seed in range(seeds)
    ]
    updates = count * (STEPS.value - LEARNING_STARTS)
    seconds = {
        "one_program": run_all(together, scratch / f"programs_together_{count}"),
        "process_per_run": run_all(alone, scratch / f"programs_alone_{count}"),
    }
    result = {
        "runs": count,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        **{f"{name}_seed_updates_per_second": updates / s for name, s in seconds.items()},
        "speedup": seconds["process_per_run"] / seconds["one_program"],
    }
    return show("programs", result)


def devices(count: int, scratch: Path) -> dict[str, float]:
    """Steps per second of a program over virtual devices; the median of its log rows."""
    logdir = scratch / f"devices_{count}"
    flag = f"--xla_force_host_platform_device_count={count}"
    run_all([train([0.6], 0, SEEDS.value, logdir)], scratch / "programs_devices", XLA_FLAGS=flag)
    (seed,) = logdir.glob("*/*/seed_0")
    rows = [row for row in read_metrics(seed) if "wall/updates_per_second" in row]
    speeds = [row["wall/updates_per_second"] for row in rows if "wall/compile_seconds" not in row]
    result = {
        "devices": count,
        "seeds": SEEDS.value,
        "seed_updates_per_second": SEEDS.value * statistics.median(speeds),
    }
    return show("devices", result)


def launcher(scratch: Path) -> dict[str, float]:
    """Seconds a cell of a sweep with one worker takes beyond its own training loop."""
    command = [
        *(sys.executable, "-m", "experiments.sweep", "--study=rigl_settings", "--size=smoke"),
        *("--workers=1", f"--logdir={scratch}"),
    ]
    before = time.perf_counter()
    cache = {"JAX_COMPILATION_CACHE_DIR": str(scratch / "programs_launcher")}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **cache})
    seconds = time.perf_counter() - before
    folder = StudyFolder(scratch / "rigl_settings-smoke")
    cells = folder.cells()
    training = [read_metrics(folder.run(cell) / "seed_0")[-1]["wall/seconds"] for cell in cells]
    result = {
        "cells": len(cells),
        "seconds": seconds,
        "training_seconds_of_a_cell": statistics.mean(training),
        "other_seconds_of_a_cell": (seconds - sum(training)) / len(cells),
    }
    return show("launcher", result)


def train(sparsities: Sequence[float], seed: int, seeds: int, logdir: Path) -> list[str]:
    """The command line of a program of runs on a probe."""
    modules = ("encoder", "critic", "actor")
    config = {
        **{f"{module}.hidden": WIDTH.value for module in modules},
        **dict.fromkeys(("zs_size", "za_size", "zsa_size"), WIDTH.value),
        "batch_size": BATCH,
        "learning_starts": LEARNING_STARTS,
    }
    return [
        *(sys.executable, "-m", "experiments.train", "--task=probe:point", "--recipe=mst"),
        *(f"--seed={seed}", f"--seeds={seeds}", f"--steps={STEPS.value}", "--log_every=250"),
        *(f"--eval_every={STEPS.value}", "--eval_episodes=1", "--checkpoint_every=0"),
        *("--history_every=0", "--diagnose_every=0", f"--logdir={logdir}"),
        *(f"--config.{name}={value}" for name, value in config.items()),
        f"--vary=critic.sparsity={','.join(map(str, sparsities))}",
    ]


def run_all(commands: Sequence[Sequence[str]], cache: Path, **environment: str) -> float:
    """Seconds until all commands have ended, run as many at a time as there are cores."""
    shared: Mapping[str, str] = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    waiting, running = deque(commands), []
    before = time.perf_counter()
    while waiting or running:
        running = [process for process in running if not ended(process)]
        while waiting and len(running) < (os.cpu_count() or 1):
            process = subprocess.Popen(
                waiting.popleft(),
                env={**os.environ, **shared, **environment},
                stdout=subprocess.DEVNULL,
            )
            running.append(process)
        time.sleep(0.02)
    return time.perf_counter() - before


def ended(process: subprocess.Popen) -> bool:
    """Whether a process has ended; one that failed ends the benchmark."""
    code = process.poll()
    if code:
        raise subprocess.CalledProcessError(code, process.args)
    return code == 0


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
