"""What compact storage saves: python -m benchmarks.compact [--output=FILE].

SAC on SimBa networks with all that a step of training does (insert, sampling, two updates, acting):
dense, and with neurons that share their inputs in compact storage, static and RigL. RigL is
measured over as many updates as lie between two rewires, so that one of them is in every repeat.
Bytes are those of the agent's state: parameters, target, moments, masks or indices; no replay.
"""

from typing import Any

import jax
from absl import flags

from benchmarks.harness import (
    CLOCKS,
    define_clock,
    define_cores,
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    on_cores,
    show,
    write_results,
)
from benchmarks.programs import Fused, fused, stored
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of, positive_integer

KINDS = ("dense", "static", "rigl", "masked_static", "masked_rigl")

SIZES = flags.DEFINE_list("sizes", ["2x1"], "Network sizes.")
SPARSITIES = flags.DEFINE_list("sparsities", ["0.9", "0.8"], "Sparsities of both networks.")
STRUCTURE = flags.DEFINE_string("structure", "shared64", "Neurons that share their inputs.")
KIND = define_list("kinds", KINDS[:3], one_of(KINDS), "What is measured, dense first.")
STEPS = flags.DEFINE_integer("steps", 4, "Agent steps of a repeat, RigL apart.", lower_bound=1)
INTERVAL = flags.DEFINE_integer("interval", 100, "Updates between two rewires.", lower_bound=2)
SEEDS = define_list("seeds", [1], positive_integer, "Seeds in a program.")
CORES = define_cores()
CLOCK = define_clock()
REPEATS = define_repeats(3)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Measures every case and prints one line for each."""
    rows = []
    with one_line_errors():
        if KIND.value[0] != "dense":
            raise ValueError(
                "--kinds: the first one must be dense, which the others are compared to"
            )
    for cores in CORES.value:
        for size in SIZES.value:
            for sparsity in map(float, SPARSITIES.value):
                for seeds in SEEDS.value:
                    given = (KIND.value, size, sparsity, STRUCTURE.value, seeds)
                    how = (STEPS.value, INTERVAL.value, REPEATS.value, CLOCK.value)
                    with one_line_errors():
                        found = on_cores(cores, compare, *given, *how)
                    rows.append(show("compact", {"cores": cores, **found}))
    write_results(OUTPUT.value, "benchmarks.compact", {"clock": CLOCK.value, "cases": rows})


def compare(
    kinds: list[str],
    size: str,
    sparsity: float,
    structure: str,
    seeds: int,
    steps: int,
    interval: int,
    repeats: int,
    clock: str,
) -> dict[str, Any]:
    """Updates per second and bytes of every kind, and what they are of the dense agent's."""
    counts = {kind: _steps(kind, steps, interval) for kind in kinds}
    programs = {
        kind: fused(stored(kind, size, sparsity, structure, interval), seeds, count, "sac")
        for kind, count in counts.items()
    }
    executed = {kind: program.execute for kind, program in programs.items()}
    seconds = interleave(executed, repeats, CLOCKS[clock])
    per_update = {kind: seconds[kind] / (2 * counts[kind] * seeds) for kind in kinds}
    found: dict[str, Any] = {"size": size, "sparsity": sparsity, "seeds": seeds}
    found |= {f"{kind}_updates_per_second": 1 / value for kind, value in per_update.items()}
    nbytes = {kind: state_bytes(program) for kind, program in programs.items()}
    found |= {f"{kind}_bytes": value for kind, value in nbytes.items()}
    for kind in kinds[1:]:
        found[f"{kind}_over_dense"] = per_update["dense"] / per_update[kind]
        found[f"{kind}_bytes_of_dense"] = nbytes[kind] / nbytes["dense"]
    if {"static", "rigl"} <= set(kinds):
        found["rigl_over_static_time"] = per_update["rigl"] / per_update["static"]
    return {"structure": structure, **found}


def _steps(kind: str, steps: int, interval: int) -> int:
    """Agent steps of a repeat, of two updates each."""
    return max(1, interval // 2) if kind.endswith("rigl") else steps


def state_bytes(program: Fused) -> int:
    """Bytes of the agent's state, of all seeds."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(program.run[0].agent))


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
