"""What stepping while the device learns saves: python -m benchmarks.stale_actions [--output=FILE].

An agent on a task of the host, with 0 and with 1 stale actions; beside them the steps of the
environments alone and the device's programs alone, which no order of the two can undercut. All are
measured in turn by the wall clock.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks.harness import (
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    play,
    show,
    write_results,
)
from benchmarks.programs import advance, kept_going, sized
from experiments.cli import one_line_errors
from experiments.inputs import define_list, positive_integer
from mst_jax import envs
from mst_jax.agents import Agent, make_agent
from mst_jax.envs import Timestep
from mst_jax.program.drivers import Driver, make_driver
from mst_jax.program.state import LoopState
from mst_jax.program.step import Phase, make_step

TASKS = define_list("tasks", ["dmc:cartpole-swingup", "dmc:dog-run"], str, "Tasks of the host.")
AGENT = flags.DEFINE_string("agent", "sac", "Algorithm.")
RECIPE = flags.DEFINE_string("recipe", "mst", "Which modules are sparse.")
SEEDS = define_list("seeds", [1, 4, 8], positive_integer, "Numbers of seeds.")
WIDTH = flags.DEFINE_integer("width", 64, "Hidden sizes.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", 64, "Batch size.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 500, "Agent steps of a repeat.", lower_bound=1)
REPEATS = define_repeats(5)
OUTPUT = define_output()

LEARNING_STARTS, CAPACITY = 300, 20_000


def main(_: list[str]) -> None:
    """Measures every task and number of seeds and prints one line for each."""
    with one_line_errors():
        tasks = {name: envs.make(name) for name in TASKS.value}
        for name, task in tasks.items():
            if isinstance(task, envs.JaxEnv):
                raise ValueError(f"--tasks={name}: its environments are part of the program")
    rows = []
    for name, task in tasks.items():
        changes = {"batch_size": BATCH.value, "learning_starts": LEARNING_STARTS}
        with one_line_errors():
            config = sized(RECIPE.value, WIDTH.value, changes, AGENT.value)
            agent = make_agent(AGENT.value, config, task.spec, 1_000_000)
        for count in SEEDS.value:
            rows.append(show("stale actions", {"task": name, **measure(agent, task, count)}))
    settings = {flag.name: flag.value for flag in (AGENT, RECIPE, WIDTH, BATCH, STEPS)}
    write_results(OUTPUT.value, "benchmarks.stale_actions", {**settings, "cases": rows})


def measure(agent: Agent, task: envs.HostTask, seeds: int) -> dict[str, Any]:
    """Milliseconds of an agent step of all seeds, and ratios of medians."""
    with ExitStack() as stack:
        environments = task.vector([(seed, 0) for seed in range(seeds)])
        stack.callback(environments.close)
        environments.reset()
        programs = {
            "ordinary": training(agent, task, seeds, 0, stack),
            "stale": training(agent, task, seeds, 1, stack),
            "environment": lambda: play(environments, STEPS.value),
            "device": learning(agent, task, seeds, stack),
        }
        medians = interleave(programs, REPEATS.value)
    return {
        "seeds": seeds,
        **{f"{name}_ms": 1e3 * value / STEPS.value for name, value in medians.items()},
        "ordinary_to_stale": medians["ordinary"] / medians["stale"],
        "stale_to_longer": medians["stale"] / max(medians["environment"], medians["device"]),
    }


def training(
    agent: Agent, task: envs.HostTask, seeds: int, stale: int, stack: ExitStack
) -> Callable[[], None]:
    """What takes `STEPS` steps past the beginning of learning."""
    driver, loop = begun(agent, task, seeds, stale, stack)
    return kept_going(lambda loop: advance(driver, loop, STEPS.value), loop)


def learning(agent: Agent, task: envs.HostTask, seeds: int, stack: ExitStack) -> Callable[[], None]:
    """What the device does in `STEPS` steps that learn, all of one timestep."""
    _, loop = begun(agent, task, seeds, 0, stack)
    step = jax.jit(make_step(agent, task.spec.action, seeds, Phase.LEARN), donate_argnums=0)
    reward, no = np.zeros(seeds, np.float32), np.zeros(seeds, bool)
    timestep = Timestep(loop.observation, reward, no, no, loop.observation, no, no)
    timestep = jax.tree.map(np.array, timestep)

    def several(loop: LoopState) -> LoopState:
        for _ in range(STEPS.value):
            loop = step(loop, timestep)
        return jax.block_until_ready(loop)

    return kept_going(several, loop)


def begun(
    agent: Agent, task: envs.HostTask, seeds: int, stale: int, stack: ExitStack
) -> tuple[Driver, LoopState]:
    """A driver, closed with the stack, and its loop after the first step that learned."""
    driver, loop = make_driver(
        agent, task, list(range(seeds)), CAPACITY, np.float32, stale_actions=stale
    )
    stack.enter_context(closing(driver))
    return driver, advance(driver, loop, LEARNING_STARTS + 1)


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
