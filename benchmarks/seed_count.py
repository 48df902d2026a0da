"""Speed against the number of seeds of a program: python -m benchmarks.seed_count [--output=FILE].

Small networks on any task. Each number of seeds has its own program and environments; they are
measured in turn, so that a slow spell of the machine hits all alike, and medians are reported.
Environments in pure JAX run in the device program and count as update. With --output the numbers
are written there and a picture beside it.
"""

import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from benchmarks.harness import (
    define_output,
    define_repeats,
    launch_benchmark,
    show,
    write_results,
)
from benchmarks.programs import advance, sized, transfer_seconds
from experiments.cli import one_line_errors
from experiments.inputs import define_list, positive_integer
from mst_jax import envs
from mst_jax.agents import Agent, make_agent
from mst_jax.figures import PALETTE, save_figure
from mst_jax.program.drivers import Driver, make_driver
from mst_jax.program.evaluation import Evaluator, make_evaluator
from mst_jax.program.state import LoopState

TASK = flags.DEFINE_string("task", "dmc:cartpole-swingup", "Task, as suite:name.")
AGENT = flags.DEFINE_string("agent", "mrq", "Algorithm.")
RECIPE = flags.DEFINE_string("recipe", "mst", "Which modules are sparse.")
SEEDS = define_list("seeds", [1, 2, 4, 8, 16, 32], positive_integer, "Numbers of seeds.")
ENVIRONMENTS = flags.DEFINE_integer("environments", 1, "Environments of each seed.", lower_bound=1)
WIDTH = flags.DEFINE_integer("width", 64, "Hidden and latent sizes.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", 64, "Batch size.", lower_bound=1)
STEPS = flags.DEFINE_integer(
    "steps",
    500,
    "Agent steps of a repeat; for MR.Q a multiple of 250 holds whole encoder bursts.",
    lower_bound=1,
)
REPEATS = define_repeats(3)
OUTPUT = define_output("JSON file to write; the picture gets its name.")

SETTINGS = ("task", "agent", "recipe", "environments", "width")
LEARNING_STARTS, CAPACITY = 300, 20_000
EVALUATION_EPISODES, EVALUATION_PERIOD = 10, 5_000  # the published protocol, for the shares


class Bench(NamedTuple):
    """One number of seeds, ready to be stepped."""

    driver: Driver
    evaluator: Evaluator  # one episode for each seed
    transfer: float  # seconds a step
    compiling: float  # seconds


def main(_: list[str]) -> None:
    """Measures all numbers of seeds, prints one line each, and draws them."""
    with one_line_errors():
        counts = SEEDS.value
        task = envs.make(TASK.value)
        changes = {"batch_size": BATCH.value, "learning_starts": LEARNING_STARTS}
        config = sized(RECIPE.value, WIDTH.value, changes, AGENT.value)
        agent = make_agent(AGENT.value, config, task.spec, 1_000_000)
    benches, runs = {}, {}
    for count in counts:
        benches[count], runs[count] = prepare(agent, task, count)
    rows: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for _repeat in range(REPEATS.value):
        for count in counts:
            runs[count], row = measure(benches[count], runs[count])
            rows[count].append(row)
    for bench in benches.values():
        bench.driver.close()
        bench.evaluator.close()
    results = [summary(count, benches[count], rows[count]) for count in counts]
    for result in results:
        show("seeds", result)
    settings = {name: flags.FLAGS[name].value for name in SETTINGS}
    write_results(OUTPUT.value, "benchmarks.seed_count", {**settings, "counts": results})
    if OUTPUT.value:
        picture = Path(OUTPUT.value).with_suffix(".png")
        save_figure(draw(results), picture)
        print(picture)


def prepare(agent: Agent, task: envs.JaxEnv | envs.HostTask, count: int) -> tuple[Bench, LoopState]:
    """Everything compiled and the buffer filled as far as learning needs."""
    seeds = list(range(count))
    environments = ENVIRONMENTS.value
    capacity = CAPACITY - CAPACITY % environments
    driver, run = make_driver(agent, task, seeds, capacity, np.float32, environments=environments)
    evaluator = make_evaluator(agent, task, seeds, 1)
    evaluator(run.agent, 0)
    run = advance(driver, run, LEARNING_STARTS + 1)
    compiling = driver.clocks.compiling
    driver.clocks.clear()
    transfer = transfer_seconds(run) if isinstance(task, envs.HostTask) else 0.0
    return Bench(driver, evaluator, transfer, compiling), run


def measure(bench: Bench, run: LoopState) -> tuple[LoopState, dict[str, float]]:
    """Seconds of `STEPS` agent steps by what they were spent on, and of an evaluation."""
    before = time.perf_counter()
    run = advance(bench.driver, run, STEPS.value)
    seconds = time.perf_counter() - before
    clocks = bench.driver.clocks
    row = {"seconds": seconds, "environment": clocks.environment, "device": clocks.device}
    clocks.clear()
    before = time.perf_counter()
    bench.evaluator(run.agent, 1)
    return run, {**row, "evaluation": time.perf_counter() - before}


def summary(count: int, bench: Bench, rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians; the transfer is a part of the device call, measured apart."""
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    transfer = bench.transfer * STEPS.value
    return {
        "seeds": count,
        "steps_per_second": STEPS.value / median["seconds"],
        "seed_steps_per_second": count * STEPS.value / median["seconds"],
        "transitions_per_second": ENVIRONMENTS.value * count * STEPS.value / median["seconds"],
        "environment_seconds": median["environment"],
        "transfer_seconds": transfer,
        "update_seconds": median["device"] - transfer,
        "other_seconds": median["seconds"] - median["environment"] - median["device"],
        "steps": STEPS.value,
        "evaluation_seconds_for_1_episode_each": median["evaluation"],
        "compile_seconds": bench.compiling,
    }


def draw(results: list[dict[str, float]]) -> Figure:
    """Throughput, and what one step of one seed costs, against the number of seeds."""
    counts = [result["seeds"] for result in results]
    figure = Figure(figsize=(11.5, 3.4), layout="constrained")
    speed, cost = figure.subplots(1, 2)
    for index, name in enumerate(("seed_steps_per_second", "steps_per_second")):
        values = [result[name] for result in results]
        label = "all seeds together" if index == 0 else "each seed"
        speed.plot(counts, values, marker="o", color=PALETTE[index], label=label)
    speed.set(xscale="log", yscale="log", xlabel="seeds in one program", ylabel="agent steps / s")
    below = np.zeros(len(results))
    for index, (label, values) in enumerate(shares(results).items()):
        cost.bar([str(c) for c in counts], values, bottom=below, color=PALETTE[index], label=label)
        below += values
    cost.set(xlabel="seeds in one program", ylabel="ms for each step of a seed")
    speed.set_xticks(counts, [str(count) for count in counts])
    speed.xaxis.minorticks_off()
    speed.legend(frameon=False)
    cost.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for axis in (speed, cost):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{TASK.value}, {AGENT.value} {RECIPE.value}, width {WIDTH.value}")
    return figure


def shares(results: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Milliseconds for each step of a seed; evaluation as often as published."""

    def per_step(name: str) -> np.ndarray:
        return np.array([1e3 * r[name] / (r["steps"] * r["seeds"]) for r in results])

    episode = [r["evaluation_seconds_for_1_episode_each"] / r["seeds"] for r in results]
    return {
        "environment": per_step("environment_seconds"),
        "transfer": per_step("transfer_seconds"),
        "update": per_step("update_seconds"),
        "other": per_step("other_seconds"),
        "evaluation, 10 episodes\nevery 5,000 steps": 1e3
        * np.array(episode)
        * EVALUATION_EPISODES
        / EVALUATION_PERIOD,
    }


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
