"""Speed of the environments under random actions: python -m benchmarks.environments.

1. `tasks`: agent steps per second, and per second of processor time (of this process and its
   workers), which other programs on the machine disturb less.
2. `restarts`: what fresh start states cost in brax, by select at every step or only when due.

Suites whose package is missing are left out.
"""

import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks.harness import (
    Cost,
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
from mst_jax.envs.device.episodic import episodic
from mst_jax.envs.device.physics import simulation_of
from mst_jax.envs.suites import brax

TASKS = {  # and agent steps of all environments in one repeat
    "dmc:cartpole-swingup": 8_000,
    "dmc:cheetah-run": 8_000,
    "dmc:humanoid-run": 2_000,
    "dmc:dog-run": 800,
    "envpool:cartpole-swingup": 16_000,
    "envpool:cheetah-run": 16_000,
    "envpool:humanoid-run": 6_000,
    "envpool:dog-run": 1_600,
    "gym:InvertedPendulum-v5": 8_000,
    "gym:HalfCheetah-v5": 8_000,
    "gym:Humanoid-v5": 3_000,
    "brax:inverted_pendulum": 40_000,
    "brax:ant": 8_000,
    "playground:CartpoleBalance": 40_000,
    "probe:point": 1_000_000,
}
PARTS = ("tasks", "restarts")
PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
TASK = define_list("tasks", list(TASKS), one_of(TASKS), "Which tasks of part 1.")
COUNT = flags.DEFINE_integer("environments", 4, "Environments stepped together.", lower_bound=1)
REPEATS = define_repeats(5)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    results: dict[str, Any] = {"load_before": os.getloadavg()}
    if "tasks" in PART.value:
        results["tasks"] = [row for name in TASK.value if (row := task(name))]
    if "restarts" in PART.value:
        results["restarts"] = [
            restarts(name, count)
            for name in ("inverted_pendulum", "ant", "inverted_pendulum@mjx")
            for count in (1, COUNT.value)
        ]
    results["load_after"] = os.getloadavg()
    write_results(OUTPUT.value, "benchmarks.environments", results)


def task(name: str) -> dict[str, Any] | None:
    """Sizes and speeds of one task, or None if its package is missing."""
    try:
        env = envs.make(name)
    except ValueError as error:
        print(f"{name} is left out: {error}")
        return None
    count, steps = COUNT.value, TASKS[name] // COUNT.value
    if isinstance(env, envs.JaxEnv):
        costs = measure(device_program(env, count, steps))
    else:
        with env.vector([(seed, 0) for seed in range(count)]) as environments:
            environments.reset()
            costs = measure(partial(play, environments, steps))
    spec = env.spec
    speeds = {
        "steps_per_second": count * steps / costs.wall,
        "steps_per_processor_second": count * steps / costs.processor,
    }
    show(name, speeds)
    return {"environments": count, **spec._asdict(), **speeds}


def device_program(env: envs.JaxEnv, count: int, steps: int) -> Callable[[], Any]:
    """Steps `count` vmapped environments by random actions in one jitted loop, always onwards."""
    shape = (count, env.spec.action.size)
    step = jax.vmap(env.step)

    def body(number: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        state, total = carry
        key = jax.random.fold_in(jax.random.key(1), number)
        state, timestep = step(state, jax.random.uniform(key, shape, minval=-1.0))
        return state, total + timestep.reward + timestep.next_observation.sum(axis=1)

    run = jax.jit(lambda carry: jax.lax.fori_loop(0, steps, body, carry))
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), count))
    carry = [(state, jnp.zeros(count))]

    def forward() -> None:
        carry[0] = jax.block_until_ready(run(carry[0]))

    return forward


def restarts(name: str, count: int) -> dict[str, Any]:
    """Processor time of a step: never restarting, restarting by select, and only when due."""
    spec, simulation = brax.make(name).spec, simulation_of(brax.load(name), 1)
    never = simulation._replace(advance=partial(endless, simulation.advance))
    programs = {
        "never": episodic(spec._replace(episode_length=None), never),
        "select": episodic(spec, simulation),
        "when_due": episodic(spec, simulation, lazy=True),
    }
    steps = 1_000
    compiled = {kind: device_program(env, count, steps) for kind, env in programs.items()}
    costs: dict[str, list[Cost]] = {kind: [] for kind in compiled}
    for _ in range(REPEATS.value + 1):
        for kind, program in compiled.items():
            costs[kind].append(once(program))
    result = {
        f"{kind}_microseconds": 1e6 * statistics.median(c.processor for c in values[1:]) / steps
        for kind, values in costs.items()
    }
    return {"name": name, "environments": count, **show(f"{name} x {count}", result)}


def endless(advance: Callable, world: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """A step after which nothing ends."""
    world, reward, _ = advance(world, action)
    return world, reward, jnp.zeros((), bool)


def measure(program: Callable[[], Any]) -> Cost:
    """Medians of repeats; the first is not counted."""
    costs = [once(program) for _ in range(REPEATS.value + 1)][1:]
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
