"""Speed of SAC on SimBa networks: python -m benchmarks.simba [--output=FILE].

1. `sizes`: the fused program (insert, sampling, two updates, acting), dense and sparse, one seed,
   against a loop in the manner of the published code (one jitted update a call, sampling and
   normalisation in NumPy, every metric fetched) and against the machine's matrix products.
2. `seeds`: seeds vmapped in one program, dense and MST.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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
from benchmarks.programs import ACTION, OBSERVATION, fused_program
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of, positive_integer
from mst_jax.agents import Sizes
from mst_jax.agents.actor_critic.core import Batch
from mst_jax.agents.actor_critic.sac import SAC, build_sac
from mst_jax.recipes import make_config, override

PARTS = ("sizes", "seeds")
PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
SIZES = flags.DEFINE_list("sizes", ["0.25x1", "1x1", "2x1", "5x1"], "Network sizes of part 1.")
STEPS = define_list(
    "steps", [100, 8, 3, 1], positive_integer, "Agent steps a repeat, for each of them."
)
SEEDS = define_list("seeds", [1, 2, 4, 8], positive_integer, "Numbers of seeds of part 2.")
SEED_SIZES = flags.DEFINE_list("seed_sizes", ["0.25x1"], "Network sizes of part 2.")
SEED_STEPS = flags.DEFINE_integer(
    "seed_steps", 50, "Agent steps a repeat in part 2.", lower_bound=1
)
REPEATS = define_repeats(3)
OUTPUT = define_output()

SPARSITY = 0.8


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    with one_line_errors():
        if len(SIZES.value) != len(STEPS.value):
            raise ValueError("--steps needs a number for each of --sizes")
    results: dict[str, Any] = {}
    if "sizes" in PART.value:
        counts = zip(SIZES.value, STEPS.value, strict=True)
        results["sizes"] = [of_size(size, steps) for size, steps in counts]
    if "seeds" in PART.value:
        cases = [(size, count) for size in SEED_SIZES.value for count in SEEDS.value]
        results["seeds"] = [of_seeds(*case) for case in cases]
    write_results(OUTPUT.value, "benchmarks.simba", results)


def of_size(size: str, steps: int) -> dict[str, Any]:
    """Updates per second of one seed."""
    dense = make_config("sac", "dense", size)
    levels = {"critic.sparsity": SPARSITY, "actor.sparsity": SPARSITY}
    sparse = override(make_config("sac", "all_static", size), levels)
    sac = build_sac(dense, Sizes.vector(OBSERVATION, ACTION, 500), 1_000_000)
    programs = {
        "dense": fused_program(dense, 1, steps, "sac")[0],
        "static": fused_program(sparse, 1, steps, "sac")[0],
        "loop": published_loop(sac, 2 * steps),
        "matmul": matrix_product,
    }
    seconds = interleave(programs, REPEATS.value)
    per_update = {name: s / (2 * steps) for name, s in seconds.items() if name != "matmul"}
    peak = MATMUL_FLOPS / seconds["matmul"]
    result = {
        "size": size,
        **{f"{name}_updates_per_second": 1 / s for name, s in per_update.items()},
        "dense_over_loop": per_update["loop"] / per_update["dense"],
        "static_over_dense_time": per_update["static"] / per_update["dense"],
        "gigaflop_per_update": update_flops(sac) / 1e9,
        "matmul_gigaflops": peak / 1e9,
        "dense_share_of_matmul": update_flops(sac) / per_update["dense"] / peak,
    }
    return show("sizes", result)


def of_seeds(size: str, count: int) -> dict[str, Any]:
    """Seed-updates per second of MST and dense."""
    steps = SEED_STEPS.value
    programs = {
        recipe: fused_program(make_config("sac", recipe, size), count, steps, "sac")[0]
        for recipe in ("mst", "dense")
    }
    seconds = interleave(programs, REPEATS.value)
    updates = 2 * steps * count
    result = {
        "size": size,
        "seeds": count,
        **{f"{name}_seed_updates_per_second": updates / s for name, s in seconds.items()},
        "mst_over_dense_time": seconds["mst"] / seconds["dense"],
    }
    return show("seeds", result)


MATMUL_SIZE = 2048
MATMUL_FLOPS = 2 * MATMUL_SIZE**3


def matrix_product() -> None:
    """One large float32 product, the machine's speed limit."""
    _product(_ONES, _ONES).block_until_ready()


_product = jax.jit(lambda a, b: a @ b)
_ONES = np.ones((MATMUL_SIZE, MATMUL_SIZE), np.float32)


def update_flops(sac: SAC) -> float:
    """Floating-point operations of one update, as XLA counts them."""
    state, batch = sac.core.init(jax.random.key(0)), zeros(sac.core.config.batch_size)
    program = jax.jit(sac.update).lower(state, batch, jax.random.key(0), jnp.zeros((), jnp.int32))
    return program.compile().cost_analysis()["flops"]


def zeros(size: int) -> Batch:
    """A batch of the benchmark's sizes."""
    observation = jnp.zeros((size, OBSERVATION))
    return Batch(
        observation,
        jnp.zeros((size, ACTION)),
        jnp.zeros(size),
        jnp.zeros(size, bool),
        observation,
    )


def published_loop(sac: SAC, updates: int, capacity: int = 20_000) -> Callable[[], None]:
    """One jitted update a call; sampling, normalisation and metrics on the host."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(capacity, OBSERVATION)).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(capacity, ACTION)).astype(np.float32)
    rewards = rng.normal(size=capacity).astype(np.float32)
    terminated = np.zeros(capacity, bool)
    following = rng.normal(size=(capacity, OBSERVATION)).astype(np.float32)
    mean, std = observations.mean(0), observations.std(0)
    update = jax.jit(sac.update, donate_argnums=0)
    held = {"state": jax.jit(sac.core.init)(jax.random.key(0))}
    key, batch_size = jax.random.key(1), sac.core.config.batch_size

    def run() -> None:
        for number in range(updates):
            index = rng.integers(0, capacity, batch_size)
            batch = Batch(
                (observations[index] - mean) / std,
                actions[index],
                rewards[index],
                terminated[index],
                (following[index] - mean) / std,
            )
            own_key = jax.random.fold_in(key, number)
            held["state"], metrics = update(held["state"], batch, own_key, np.int32(number))
            _ = {name: float(value) for name, value in metrics.items()}

    return run


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
