"""What bfloat16 products save: python -m benchmarks.precision [--output=FILE].

The fused program (insert, sampling, learning, acting) of an agent under MST with `--precision=bf16`
against the same in float32, which is TF32 on recent GPUs; beside them the machine's large matrix
product, both ways.
"""

from collections.abc import Callable
from typing import Any

import jax
from absl import flags

from benchmarks.harness import (
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    show,
    write_results,
)
from benchmarks.programs import FILLED, VECTORS, fused
from experiments.cli import one_line_errors
from experiments.inputs import define_list, positive_integer
from mst_jax.agents import Sizes
from mst_jax.envs import Continuous, Observation
from mst_jax.networks import PRECISIONS, in_precision
from mst_jax.networks.products import product
from mst_jax.recipes import make_config

CASES = define_list(
    "cases",
    ["sac:0.25x1", "sac:1x1", "sac:2x1", "mrq:0.25x1", "drqv2:0.25x1"],
    str,
    "Agents and sizes of their networks; drqv2 sees pictures of 84 pixels.",
)
STEPS = define_list(
    "steps", [100, 8, 3, 25, 2], positive_integer, "Agent steps a repeat, for each of them."
)
SEEDS = define_list("seeds", [1, 4], positive_integer, "Numbers of seeds in a program.")
SIDE = flags.DEFINE_integer("side", 2048, "Of the large product's operands.", lower_bound=1)
REPEATS = define_repeats(5)
OUTPUT = define_output()

PICTURES = Sizes(Observation((84, 84, 9), "uint8", history=3), Continuous(6), 500)
FEW = 500  # steps in a buffer of pictures


def main(_: list[str]) -> None:
    """Measures every case and number of seeds and prints one line for each."""
    with one_line_errors():
        if len(CASES.value) != len(STEPS.value):
            raise ValueError("--steps needs a number for each of --cases")
        for case in CASES.value:
            make_config(*_named(case))
    record: dict[str, Any] = {"product": large_product()}
    record["cases"] = [
        of_case(case, steps, count)
        for case, steps in zip(CASES.value, STEPS.value, strict=True)
        for count in SEEDS.value
    ]
    write_results(OUTPUT.value, "benchmarks.precision", record)


def large_product() -> dict[str, float]:
    """10^9 operations a second of a product of two large matrices that a layer makes."""
    side = SIDE.value
    x, kernel = jax.random.normal(jax.random.key(0), (2, side, side))

    def multiplied(precision: str) -> Callable[[], None]:
        program = jax.jit(in_precision(precision, product))
        return lambda: program(x, kernel).block_until_ready()

    seconds = interleave({p: multiplied(p) for p in PRECISIONS}, REPEATS.value)
    rates = {f"{name}_gigaflops": 2 * side**3 / s / 1e9 for name, s in seconds.items()}
    return show("product", {"side": side, **rates, "bf16_over_float32": ratio(seconds)})


def of_case(case: str, steps: int, count: int) -> dict[str, Any]:
    """Seconds of an agent step of all seeds, and how many times as fast it is in bf16."""
    name, recipe, size = _named(case)
    config = make_config(name, recipe, size)
    sizes, filled = (PICTURES, FEW) if name == "drqv2" else (VECTORS, FILLED)
    programs = {
        precision: fused(config, count, steps, name, sizes, filled, precision).execute
        for precision in PRECISIONS
    }
    seconds = interleave(programs, REPEATS.value)
    own = {f"{precision}_seconds": s / steps for precision, s in seconds.items()}
    result = {"case": case, "seeds": count, **own, "bf16_over_float32": ratio(seconds)}
    return show("cases", result)


def ratio(seconds: dict[str, float]) -> float:
    """How many times as fast bf16 is."""
    return seconds["float32"] / seconds["bf16"]


def _named(case: str) -> tuple[str, str, str]:
    """Agent, recipe and size of a case."""
    name, _, size = case.partition(":")
    return name, "mst", size


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
