"""Memory of large networks: python -m benchmarks.memory [--output=FILE].

SAC on SimBa networks, dense, with masks, and in compact storage. Bytes of the agent's state are
those of its arrays: parameters, target, moments, masks or indices. Temporaries are what the
compiler of the backend at hand plans for one training step (insert, sampling, two updates,
acting), whose inputs are given up. No replay, which is printed before every run. Nothing is
allocated and nothing is run, so networks that the machine could not hold are measured too. Bytes
of state are in proportion to the seeds.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import define_output, launch_benchmark, show, write_results
from benchmarks.programs import VECTORS, stored
from experiments.cli import one_line_errors
from experiments.inputs import define_list, finite_number, one_of, positive_integer
from mst_jax.agents import make_agent
from mst_jax.envs import Timestep
from mst_jax.program.state import init_loop
from mst_jax.program.step import Phase, make_step

KINDS = ("dense", "masked", "compact")
REGIMES = ("static", "rigl")

SIZES = define_list("sizes", ["17M", "109M", "208M"], str, "Network sizes.")
SPARSITIES = define_list("sparsities", [0.8, 0.9], finite_number, "Sparsities of both networks.")
KIND = define_list("kinds", list(KINDS), one_of(KINDS), "How weights are stored.")
REGIME = define_list("regimes", list(REGIMES), one_of(REGIMES), "What moves of a sparse one.")
SEEDS = define_list("seeds", [1], positive_integer, "Seeds in a program.")
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Measures every size, kind and number of seeds and prints one line for each."""
    rows = []
    for size in SIZES.value:
        for kind in KIND.value:
            sparse = [(s, regime) for s in SPARSITIES.value for regime in REGIME.value]
            for sparsity, regime in sparse if kind != "dense" else [(0.0, "dense")]:
                for seeds in SEEDS.value:
                    with one_line_errors():
                        found = memory_of(size, kind, sparsity, regime, seeds)
                    rows.append(show("memory", found))
                    record = {"backend": jax.default_backend(), "cases": rows}
                    write_results(OUTPUT.value, "benchmarks.memory", record)


def memory_of(size: str, kind: str, sparsity: float, regime: str, seeds: int) -> dict[str, Any]:
    """Bytes of the agent's state and of a training step's temporaries, of all seeds."""
    name = {"dense": "dense", "masked": f"masked_{regime}", "compact": regime}[kind]
    config = stored(name, size, sparsity, "shared64", 100)
    agent = make_agent("sac", config, VECTORS, 1_000_000)
    observation = jax.ShapeDtypeStruct((seeds, *VECTORS.observation.shape), jnp.float32)
    capacity = 4 * config.batch_size
    start = partial(init_loop, agent, list(range(seeds)), capacity, sizes=VECTORS)
    run = jax.eval_shape(start, observation=observation)
    reward, ended = (jax.ShapeDtypeStruct((seeds,), dtype) for dtype in (jnp.float32, bool))
    timestep = Timestep(observation, reward, ended, ended, observation, ended, ended)
    step = make_step(agent, VECTORS.action, seeds, Phase.LEARN)
    plan = jax.jit(step, donate_argnums=0).lower(run, timestep).compile().memory_analysis()
    case = {"size": size, "kind": kind, "sparsity": sparsity, "regime": regime, "seeds": seeds}
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run.agent))
    return {**case, "state_bytes": state, "temporary_bytes": plan.temp_size_in_bytes}


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
