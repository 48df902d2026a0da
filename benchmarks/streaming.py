"""Speed of Stream AC(λ): python -m benchmarks.streaming [--output=FILE].

1. `updates`: updates per second on random transitions, dense and with static masks, in a scan over
   steps on the device (the step that training takes, ring for diagnostics and action included) and
   through the host loop, one device call a step; against the same agent in eager PyTorch (dense,
   one seed, act and learn), where PyTorch is installed.
2. `shares`: where the time of training on gym:Walker2d-v4 goes: environment, dispatch (the device
   call beyond what the same step takes in a scan), arithmetic (that scan), and the loop in Python.

PyTorch runs one agent at a time, so its updates per second do not depend on their number. One core
for both, as a run has it that shares a machine with others of its kind:
OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.streaming.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks.harness import (
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    show,
    write_results,
)
from benchmarks.programs import advance, kept_going, sized
from experiments.inputs import define_list, one_of, positive_integer
from mst_jax import envs
from mst_jax.agents import Agent, make_agent
from mst_jax.envs import HostTask, Spec, Timestep
from mst_jax.envs.base import vector_spec
from mst_jax.program.drivers import make_driver
from mst_jax.program.state import LOOKED_AT, LoopState
from mst_jax.program.step import Phase, make_step

PARTS = ("updates", "shares")
PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
WIDTHS = define_list("widths", [64, 128, 256, 512], positive_integer, "Hidden sizes of part 1.")
AGENTS = define_list("agents", [1, 5, 20], positive_integer, "Agents in a program of part 1.")
SHARE_WIDTHS = define_list("share_widths", [128, 512], positive_integer, "Hidden sizes of part 2.")
SHARE_AGENTS = define_list("share_agents", [5, 15], positive_integer, "Agents of part 2.")
STEPS = flags.DEFINE_integer(
    "steps", 2_000, "Steps of a repeat at width 64; fewer, the wider.", lower_bound=8
)
REPEATS = define_repeats(5)
OUTPUT = define_output()

RECIPES = {0.0: "dense", 0.8: "network_sparsity_streaming"}  # sparsity of both networks
TASK = "gym:Walker2d-v4"
OBSERVATION, ACTION = 18, 6  # of it, with the time
LENGTH = 256  # random transitions, over and over; two of them end an episode


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    results: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "torch": None}
    if importlib.util.find_spec("torch"):
        import torch

        results |= {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}
    else:
        print("PyTorch is not installed (pip install 'mst_jax[peers]'): no ratios to it")
    if "updates" in PART.value:
        results["updates"] = [row for width in WIDTHS.value for row in updates(width)]
    if "shares" in PART.value:
        cases = [(width, count) for width in SHARE_WIDTHS.value for count in SHARE_AGENTS.value]
        results["shares"] = [shares(*case) for case in cases]
    write_results(OUTPUT.value, "benchmarks.streaming", results)


def updates(width: int) -> list[dict[str, float]]:
    """Updates per second of all agents together, for each sparsity and number of agents."""
    steps = steps_at(width)
    cases = [(sparsity, count) for sparsity in RECIPES for count in AGENTS.value]
    programs: dict[Any, Callable[[], None]] = {}
    if importlib.util.find_spec("torch"):
        programs["torch"] = eager(width, steps)
    for sparsity, count in cases:
        spec = vector_spec("random", OBSERVATION, ACTION, 1_000)
        agent = streaming_agent(width, sparsity, spec)
        programs["scan", sparsity, count] = scan(agent, spec, count, steps)
        programs["host", sparsity, count] = host(agent, spec, count, steps)
    seconds = interleave(programs, REPEATS.value)
    return [
        show("updates", result(width, sparsity, count, steps, seconds)) for sparsity, count in cases
    ]


def result(
    width: int, sparsity: float, count: int, steps: int, seconds: dict[Any, float]
) -> dict[str, float]:
    """Speeds of one case and their ratios."""
    scan, host = seconds["scan", sparsity, count], seconds["host", sparsity, count]
    row = {
        "width": width,
        "sparsity": sparsity,
        "agents": count,
        "scan_updates_per_second": count * steps / scan,
        "host_updates_per_second": count * steps / host,
        "host_over_scan_time": host / scan,
    }
    if "torch" not in seconds:
        return row
    rate = steps / seconds["torch"]
    return {
        **row,
        "torch_updates_per_second": rate,
        "scan_over_torch": row["scan_updates_per_second"] / rate,
        "host_over_torch": row["host_updates_per_second"] / rate,
    }


def shares(width: int, count: int) -> dict[str, float]:
    """Milliseconds of one step of all agents on `TASK` by what they are spent on."""
    task, steps = envs.make(TASK, with_time="published"), steps_at(width)
    agent = streaming_agent(width, 0.8, task.spec)
    arithmetic = scan(agent, task.spec, count, steps)
    driver, loop = make_driver(agent, task, list(range(count)), LOOKED_AT, np.float32)
    rows = []
    for round_number in range(REPEATS.value + 1):
        before = time.perf_counter()
        arithmetic()
        row = {"arithmetic": time.perf_counter() - before}
        driver.clocks.clear()
        before = time.perf_counter()
        loop = advance(driver, loop, steps)
        total, clocks = time.perf_counter() - before, driver.clocks
        row |= {"total": total, "environment": clocks.environment, "call": clocks.device}
        if round_number:  # the first one compiles
            rows.append(row)
    driver.close()
    ms = {name: 1e3 / steps * statistics.median(row[name] for row in rows) for name in rows[0]}
    return show(
        "shares",
        {
            "width": width,
            "sparsity": 0.8,
            "agents": count,
            "step_ms": ms["total"],
            "environment_ms": ms["environment"],
            "dispatch_ms": ms["call"] - ms["arithmetic"],
            "arithmetic_ms": ms["arithmetic"],
            "python_ms": ms["total"] - ms["environment"] - ms["call"],
            "device_call_over_scan_time": ms["call"] / ms["arithmetic"],
        },
    )


def steps_at(width: int) -> int:
    """Steps of a repeat."""
    return max(1, STEPS.value * 64 // width)


def streaming_agent(width: int, sparsity: float, spec: Spec) -> Agent:
    """One-seed functions of the published agent at another width."""
    config = sized(RECIPES[sparsity], width, agent="stream_ac")
    return make_agent("stream_ac", config, spec, 2_000_000)


def scan(agent: Agent, spec: Spec, count: int, steps: int) -> Callable[[], None]:
    """Takes `steps` steps of `count` agents in one device call."""
    task = random_task(spec)
    _, loop = make_driver(agent, task, list(range(count)), LOOKED_AT, np.float32)
    step = make_step(agent, spec.action, count, Phase.LEARN)

    def many(loop: LoopState, stream: Timestep) -> LoopState:
        def one(index: jax.Array, loop: LoopState) -> LoopState:
            return step(loop, jax.tree.map(lambda x: x[index % LENGTH], stream))

        return jax.lax.fori_loop(0, steps, one, loop)

    program, stream = jax.jit(many, donate_argnums=0), random_stream(spec, count)
    return kept_going(lambda loop: jax.block_until_ready(program(loop, stream)), loop)


def host(agent: Agent, spec: Spec, count: int, steps: int) -> Callable[[], None]:
    """Takes `steps` steps of `count` agents as the trainer does where environments cost nothing."""
    driver, loop = make_driver(agent, random_task(spec), list(range(count)), LOOKED_AT, np.float32)
    return kept_going(lambda loop: advance(driver, loop, steps), loop)


def random_stream(spec: Spec, count: int) -> Timestep:
    """`LENGTH` random transitions of `count` environments, a leading axis each."""
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(LENGTH, count, *spec.observation.shape)).astype(np.float32)
    reward = rng.normal(size=(LENGTH, count)).astype(np.float32)
    terminated, truncated = (np.zeros((LENGTH, count), bool) for _ in range(2))
    terminated[LENGTH // 2], truncated[-1] = True, True
    lost, over = np.zeros((LENGTH, count), bool), terminated | truncated
    return Timestep(observation, reward, terminated, truncated, observation, lost, over)


class RandomEnvironments:
    """Environments on the host whose steps are there beforehand."""

    def __init__(self, spec: Spec, count: int) -> None:
        stream = random_stream(spec, count)
        self._steps = [jax.tree.map(lambda x, i=i: x[i], stream) for i in range(LENGTH)]
        self._upcoming = self._endless()

    def _endless(self) -> Iterator[Timestep]:
        while True:
            yield from self._steps

    def reset(self) -> np.ndarray:
        """See `envs.HostVectorEnv`."""
        return np.asarray(self._steps[-1].observation)

    def step(self, actions: np.ndarray) -> Timestep:
        """See `envs.HostVectorEnv`."""
        del actions
        return next(self._upcoming)


def random_task(spec: Spec) -> HostTask:
    """Of `RandomEnvironments`."""
    return HostTask(spec, lambda seeds, timeout: RandomEnvironments(spec, len(seeds)))


def eager(width: int, steps: int) -> Callable[[], None]:
    """Takes `steps` steps of one dense agent in PyTorch."""
    from benchmarks.peers.torch_stream_ac import TorchStreamAC

    spec = vector_spec("random", OBSERVATION, ACTION, 1_000)
    stream = random_stream(spec, 1)
    observations = np.asarray(stream.next_observation, np.float64)[:, 0]
    rewards, overs = np.asarray(stream.reward)[:, 0], np.asarray(stream.over)[:, 0]
    agent = TorchStreamAC(sized("dense", width, agent="stream_ac"), OBSERVATION, ACTION)
    features = agent.begin(observations[-1])

    def execute() -> None:
        nonlocal features
        action = agent.act(features)
        for index in range(steps):
            at = index % LENGTH
            reward, over = float(rewards[at]), bool(overs[at])
            features = agent.learn(features, action, reward, over, observations[at])
            if over:
                features = agent.begin(observations[at])
            action = agent.act(features)

    return execute


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
