"""Cost of the default diagnostics: python -m benchmarks.diagnostics [--output=FILE].

One row of all metrics against the training between two rows (5,000 agent steps, the default),
measured in turn in one process.
"""

from typing import Any

import jax

from benchmarks.harness import (
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    write_results,
)
from benchmarks.programs import UPDATES, fused, sized
from mst_jax.program.diagnosing import make_diagnose
from mst_jax.recipes import make_config

EVERY = 5_000  # agent steps between rows, the launcher's default
REPEATS = define_repeats(3)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Prints one line for each agent, size and number of seeds."""
    cases = [
        ("sac", "0.25x1", make_config("sac", "mst", "0.25x1"), 50),
        ("sac", "1x1", make_config("sac", "mst"), 6),
        ("mrq", "width 128", sized("mst", 128), UPDATES),  # a target period: one encoder burst
    ]
    results = [cost(*case, seeds) for case in cases for seeds in (1, 4)]
    write_results(OUTPUT.value, "benchmarks.diagnostics", results)


def cost(name: str, size: str, config: Any, steps: int, seeds: int) -> dict[str, Any]:
    """Seconds of a row, and what share it is of the training between two, from `steps` steps."""
    training = fused(config, seeds, steps, name)
    diagnose = make_diagnose(training.agent, seeds)
    seconds = interleave(
        {
            "training": training.execute,
            "row": lambda: jax.block_until_ready(diagnose(training.run[0], 0)),
        },
        REPEATS.value,
    )
    between = seconds["training"] * EVERY / steps
    result = {
        "agent": name,
        "size": size,
        "seeds": seeds,
        "row_seconds": seconds["row"],
        "training_seconds_between_rows": between,
        "share_of_training_time": seconds["row"] / between,
    }
    print(
        ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in result.items())
    )
    return result


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
