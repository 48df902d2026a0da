"""Speed of tasks from pictures under random actions: python -m benchmarks.pixels.

1. `speed`: agent steps per second of two environments by quality and worker processes, and how much
   of a step's processor time is drawing: what the same task shows as states takes the rest.
2. `memory`: what a worker process takes with one environment and with eight.
"""

import os
import statistics
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.harness import (
    Cost,
    children,
    define_output,
    define_repeats,
    launch_benchmark,
    once,
    play,
    show,
    write_results,
)
from experiments.inputs import define_list, one_of
from mst_jax import envs
from mst_jax.envs.pictures import QUALITIES, Pictures
from mst_jax.envs.suites import dmc, dmc_pixels

TASKS = ("cartpole-swingup", "walker-walk", "quadruped-run")
STEPS = {"states": 400, "exact": 20, "fast": 40, "plain": 200}  # of each environment in one repeat
ENVIRONMENTS, WORKERS = 2, (1, 2)
PARTS = ("speed", "memory")
PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
TASK = define_list("tasks", TASKS, one_of(TASKS), "Which tasks.")
SIZE = flags.DEFINE_integer("picture_size", 84, "Height and width of the pictures.")
REPEATS = define_repeats(7)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    results: dict[str, Any] = {"load_before": os.getloadavg(), "picture_size": SIZE.value}
    if "speed" in PART.value:
        results["speed"] = {name: speed(name) for name in TASK.value}
    if "memory" in PART.value:
        results["memory"] = {name: memory(name) for name in TASK.value}
    results["load_after"] = os.getloadavg()
    write_results(OUTPUT.value, "benchmarks.pixels", results)


def task(name: str, kind: str) -> envs.HostTask:
    """A task as states, or as pictures of a quality."""
    if kind == "states":
        return dmc.make(name)
    return dmc_pixels.make(name, pictures=Pictures(SIZE.value, kind))


def speed(name: str) -> list[dict[str, Any]]:
    """Speeds of all kinds, run in turn so that a slow spell hits all alike."""
    seeds = [(seed, 0) for seed in range(ENVIRONMENTS)]
    cases = [(kind, workers) for workers in WORKERS for kind in ("states", *QUALITIES)]
    running = {case: task(name, case[0]).vector(seeds, workers=case[1]) for case in cases}
    costs: dict[tuple[str, int], list[Cost]] = {case: [] for case in cases}
    for environments in running.values():
        environments.reset()
    for _ in range(REPEATS.value + 1):
        for case, environments in running.items():
            costs[case].append(once(lambda e=environments, k=case[0]: play(e, STEPS[k])))
    for environments in running.values():
        environments.close()
    medians = {
        case: [
            statistics.median(cost[clock] for cost in values[1:]) / (STEPS[case[0]] * ENVIRONMENTS)
            for clock in (0, 1)
        ]
        for case, values in costs.items()
    }
    return [_row(name, case, medians) for case in cases]


def _row(name: str, case: tuple[str, int], medians: dict[Any, list[float]]) -> dict[str, Any]:
    """One case's speeds, and its ratios to others of the same run."""
    kind, workers = case
    wall, processor = medians[case]
    result = {
        "steps_per_second": 1 / wall,
        "milliseconds": 1e3 * wall,
        "processor_milliseconds": 1e3 * processor,
        "drawing_share": 1 - medians["states", workers][1] / processor,
        "time_of_exact": wall / medians["exact", workers][0],
        "time_of_one_worker": wall / medians[kind, 1][0],
    }
    return {"kind": kind, "workers": workers, **show(f"{name} {kind} x {workers}", result)}


def memory(name: str) -> dict[str, dict[str, float]]:
    """Megabytes of one worker process with so many environments, by what it shows."""
    found = {}
    for kind in ("states", *QUALITIES):
        found[kind] = {}
        for count in (1, 8):
            with task(name, kind).vector([(0, i) for i in range(count)], workers=1) as running:
                running.reset()
                (worker,) = children()
                found[kind][f"environments_{count}"] = _resident(worker)
        show(f"{name} {kind}, MB", found[kind])
    return found


def _resident(process: str) -> float:
    """Megabytes that a process holds."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
