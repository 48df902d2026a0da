"""Speed of MR.Q's training program: python -m benchmarks.training [--output=FILE].

1. `arithmetic`: the fused program (insert, prioritised sampling, learning, priorities, acting)
   against a jitted scan of the same losses and optimizers on batches at hand, for several widths.
2. `seeds`: seeds vmapped in one program, MST and dense.
3. `rewiring`: RigL every 100 and every 1000 updates against static masks and dense training.
4. `shares`: where the time of a host-environment run goes.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import (
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    show,
    write_results,
)
from benchmarks.programs import (
    ACTION,
    OBSERVATION,
    UPDATES,
    advance,
    fused_program,
    sized,
    transfer_seconds,
)
from experiments.inputs import define_list, one_of, positive_integer
from mst_jax import envs
from mst_jax.agents import MRQConfig, Sizes, make_agent
from mst_jax.agents.mr import losses
from mst_jax.agents.mr.mrq import build_mrq
from mst_jax.program.drivers import make_driver
from mst_jax.program.evaluation import make_evaluator

PARTS = ("arithmetic", "seeds", "rewiring", "shares")
PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
WIDTHS = define_list(
    "widths", [64, 128, 512], positive_integer, "Hidden and latent sizes of part 1."
)
SEEDS = define_list("seeds", [1, 2, 4, 8], positive_integer, "Numbers of seeds of part 2.")
REPEATS = define_repeats(3)
OUTPUT = define_output()


class Batch(NamedTuple):
    """The fields that MR.Q reads of a sampled batch."""

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    next_observation: jax.Array


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    results: dict[str, Any] = {}
    if "arithmetic" in PART.value:
        results["arithmetic"] = [arithmetic(width) for width in WIDTHS.value]
    if "seeds" in PART.value:
        results["seeds"] = [seeds(count) for count in SEEDS.value]
    if "rewiring" in PART.value:
        results["rewiring"] = [rewiring(count) for count in (1, 4)]
    if "shares" in PART.value:
        results["shares"] = shares()
    write_results(OUTPUT.value, "benchmarks.training", results)


def arithmetic(width: int) -> dict[str, float]:
    """Updates per second of the fused program and of a scan of its arithmetic alone, one seed."""
    config = sized("mrq_stock", width)
    fused, compile_seconds = fused_program(config, 1)
    seconds = interleave({"fused": fused, "scan": plain_scan(config)}, REPEATS.value)
    result = {
        "width": width,
        "fused_updates_per_second": UPDATES / seconds["fused"],
        "scan_updates_per_second": UPDATES / seconds["scan"],
        "fused_over_scan": seconds["scan"] / seconds["fused"],
        "compile_seconds": compile_seconds,
    }
    return show("arithmetic", result)


def seeds(count: int) -> dict[str, float]:
    """Seed-updates per second of MST and dense, width 64."""
    programs, compiled = {}, {}
    for recipe in ("mst", "dense"):
        programs[recipe], compiled[recipe] = fused_program(sized(recipe, 64), count)
    seconds = interleave(programs, REPEATS.value)
    result = {
        "seeds": count,
        "mst_seed_updates_per_second": count * UPDATES / seconds["mst"],
        "dense_seed_updates_per_second": count * UPDATES / seconds["dense"],
        "mst_over_dense_time": seconds["mst"] / seconds["dense"],
        "mst_compile_seconds": compiled["mst"],
        "dense_compile_seconds": compiled["dense"],
    }
    return show("seeds", result)


def rewiring(count: int) -> dict[str, float]:
    """Time of a RigL critic relative to a static one and to dense training; width and batch 64.

    Small batches make the topology's share of the time large.
    """
    intervals = {"rigl_100": 100, "rigl_1000": 1000}
    small = {"batch_size": 64}
    configs = {
        name: sized("mst", 64, {**small, "critic.interval": n}) for name, n in intervals.items()
    }
    configs["static"] = sized("mst", 64, {**small, "critic.regime": "static"})
    configs["dense"] = sized("dense", 64, small)
    programs = {
        # Four periods, so that an interval of 1000 is amortised exactly.
        name: fused_program(config, count, updates=4 * UPDATES)[0]
        for name, config in configs.items()
    }
    seconds = interleave(programs, REPEATS.value)
    result = {"seeds": count}
    for name in intervals:
        result[f"{name}_over_static"] = seconds[name] / seconds["static"]
        result[f"{name}_over_dense"] = seconds[name] / seconds["dense"]
    result["static_over_dense"] = seconds["static"] / seconds["dense"]
    return show("rewiring", result)


def shares() -> dict[str, float]:
    """Environment, transfer, learning and evaluation time of 4 seeds on dmc:cartpole-swingup."""
    config = sized("mst", 64, {"batch_size": 64, "learning_starts": 500})
    task = envs.make("dmc:cartpole-swingup")
    agent = make_agent("mrq", config, task.spec, 100_000)
    driver, run = make_driver(agent, task, [0, 1, 2, 3], 10_000, np.float32)
    run = advance(driver, run, 750)
    driver.clocks.clear()
    run = advance(driver, run, 1_000)
    environment, device = driver.clocks.environment, driver.clocks.device
    driver.close()
    evaluator = make_evaluator(agent, task, [0, 1, 2, 3], 3)
    evaluator(run.agent, 0)
    before = time.perf_counter()
    evaluator(run.agent, 1)
    evaluation = time.perf_counter() - before
    evaluator.close()
    result = {
        "steps": 1000,
        "environment_seconds": environment,
        "transfer_seconds": 1000 * transfer_seconds(run),
        "device_seconds": device,
        "evaluation_seconds_for_12_episodes": evaluation,
    }
    return show("shares", result)


def plain_scan(config: MRQConfig) -> Callable[[], None]:
    """As many encoder, critic and actor updates of one seed on batches at hand, nothing else.

    Batches change from update to update: with one batch XLA would move the target networks'
    arithmetic out of the loop.
    """
    mrq = build_mrq(config, Sizes.vector(OBSERVATION, ACTION), 1_000_000)
    rng = np.random.default_rng(0)
    lead, horizon = (8, config.batch_size), config.horizon
    normal = lambda *shape: jnp.asarray(rng.normal(size=(*lead, *shape)), jnp.float32)  # noqa: E731
    windows = Batch(
        normal(horizon + 1, OBSERVATION),
        normal(horizon, ACTION),
        normal(horizon),
        jnp.zeros((*lead, horizon), bool),
        normal(OBSERVATION),
    )
    weights = losses.EncoderLossWeights(1.0, 0.1, 0.1)

    def update(state: Any, step: jax.Array) -> tuple[Any, None]:
        window = jax.tree.map(lambda x: x[step % lead[0]], windows)
        (params, opt_state), _ = mrq.core.update_encoder(
            state.params["encoder"],
            state.opt_state["encoder"],
            state.target_params["encoder"],
            window,
            weights,
            step,
        )
        state = state.replace(
            params={**state.params, "encoder": params},
            opt_state={**state.opt_state, "encoder": opt_state},
        )
        pair = Batch(
            window.observation[:, 0],
            window.action[:, 0],
            window.reward[:, : config.n_step],
            window.terminated[:, : config.n_step],
            window.next_observation,
        )
        return mrq.update(state, pair, jax.random.fold_in(jax.random.key(1), step), step)[0], None

    program = jax.jit(lambda state: jax.lax.scan(update, state, jnp.arange(UPDATES))[0])
    state = mrq.core.init(jax.random.key(0))
    return lambda: jax.block_until_ready(program(state))


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
