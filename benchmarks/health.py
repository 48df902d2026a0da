"""Cost of the health check at evaluations: python -m benchmarks.health [--output=FILE].

What a quickstart's checks take, compiling included, against the training of the same quickstart,
measured in turn in one process. Environments and evaluations are left out, so the true share of a
quickstart is smaller.
"""

import time
from functools import partial

import jax

from benchmarks.harness import (
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    show,
    write_results,
)
from benchmarks.programs import UPDATES, fused
from experiments.quickstart import SEEDS, SMALL, STEPS
from mst_jax.program.step import still_healthy
from mst_jax.recipes import make_config, override

EVALUATIONS = 8  # of a quickstart
REPEATS = define_repeats(5)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Prints one line."""
    training = fused(override(make_config("mrq", "mst"), SMALL), SEEDS.value)
    check = jax.jit(partial(still_healthy, training.agent))
    before = time.perf_counter()
    check(training.run[0]).block_until_ready()
    first = time.perf_counter() - before
    seconds = interleave(
        {
            "training": training.execute,
            "check": lambda: check(training.run[0]).block_until_ready(),
        },
        REPEATS.value,
    )
    checks = first + (EVALUATIONS - 1) * seconds["check"]
    updates = STEPS.value - SMALL["learning_starts"]
    whole = seconds["training"] * updates / UPDATES
    result = {
        "first_check_seconds": first,
        "check_seconds": seconds["check"],
        "checks_of_a_quickstart_seconds": checks,
        "training_of_a_quickstart_seconds": whole,
        "share_of_training": checks / whole,
    }
    show("health", result)
    write_results(OUTPUT.value, "benchmarks.health", result)


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
