"""Simplicity scores of SAC's networks at initialisation: python -m benchmarks.simplicity.

Dense, and with the static masks of the Network Sparsity paper's parity recipe on the same initial
weights. The paper does not say what its networks' inputs and sizes are or which layers it masks.
Our reading, written down before any of it was run: two inputs, as the score was published first (an
observation of two numbers for the actor, one and an action for the critic), the default size, whose
score is near the paper's dense one, all kernels that the recipe masks. A score is of one
initialisation; docs/claims.md has the mean difference.
"""

from typing import Any

import jax
from absl import flags

from benchmarks.harness import define_output, launch_benchmark, show, write_results
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of
from mst_jax.agents import Sizes
from mst_jax.agents.actor_critic.sac import SAC, build_sac
from mst_jax.diagnostics import simplicity_score
from mst_jax.recipes import make_config, override

KINDS = {"dense": 0.0, "sparse": 0.9}  # sparsity of both networks
INPUTS = {"actor": Sizes.vector(2, 1, 500), "critic": Sizes.vector(1, 1, 500)}
MODULE = define_list("modules", list(INPUTS), one_of(INPUTS), "Networks.")
SIZE = flags.DEFINE_string("size", "1x1", "Their size.")
INITS = flags.DEFINE_integer("inits", 100, "Initialisations of each.", lower_bound=1)
GRID = flags.DEFINE_integer("grid", 300, "Points along each side.", lower_bound=2)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Scores networks one by one and prints the mean of each kind."""
    found: dict[str, Any] = {}
    for module in MODULE.value:
        for kind, sparsity in KINDS.items():
            with one_line_errors():
                scores = scores_of(module, sparsity)
            found[f"{module} {kind}"] = scores
            show(f"{module} {kind}", {"inits": len(scores), "mean": sum(scores) / len(scores)})
            write_results(OUTPUT.value, "benchmarks.simplicity", found)


def scores_of(module: str, sparsity: float) -> list[float]:
    """The score of each initialisation of a module."""
    config = make_config("sac", "network_sparsity_parity" if sparsity else "dense", SIZE.value)
    levels = {f"{name}.sparsity": sparsity for name in INPUTS} if sparsity else {}
    sac = build_sac(override(config, {**levels, "twin": False}), INPUTS[module], 1_000_000)

    def draw(key: jax.Array, points: jax.Array) -> jax.Array:
        return _output(sac, module, sac.core.trained.init(key)[0][module], points)

    score = jax.jit(lambda key: simplicity_score(draw, key, inits=1, grid=GRID.value))
    keys = jax.random.split(jax.random.key(0), INITS.value)
    return [float(score(key)) for key in keys]


def _output(sac: SAC, module: str, params: Any, points: jax.Array) -> jax.Array:
    """The mean of the policy, or the value (N,) at points (N, 2)."""
    if module == "actor":
        return sac.actor.apply(params, points)[0][:, 0]
    return sac.core.critic.apply(params, points)[:, 0]


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
