"""What the papers' own variants change, in numbers: one global threshold, SET by sign, NE's rate.

No training: weights are those that a network begins with, or normal ones:

    python -m experiments.examples.topology_variants
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mst_jax import topology
from mst_jax.agents import default_config
from mst_jax.networks import make_critic

SPARSITY = 0.6
INPUTS = 223 + 38  # observations and actions of dmc:dog-run
REWIRES = 100  # of the authors' NE in a million steps


def pruned(params: Any, sparsity: float, **options: Any) -> optax.OptState:
    """The state after one magnitude prune of all kernels together to a sparsity.

    Args:
        params: parameters of one network.
        sparsity: share of its kernels' weights that go.
        **options: of `topology.gradual_magnitude_pruning`.

    Returns:
        Sparse state, for masks and statistics.
    """
    rule = topology.gradual_magnitude_pruning(sparsity, start=0, end=1, interval=1, **options)
    tx = topology.sparse(optax.set_to_zero(), topology.plan(params, {".*kernel": rule}))
    params, state = topology.init(tx, params, jax.random.key(0))
    return tx.update(params, state, params, step=1)[1]


def overlap_by_sign(mean: float, drop: float, size: int = 100_000) -> float:
    """Jaccard overlap of what SET keeps by sign and by magnitude.

    Args:
        mean: mean of the weights, in standard deviations.
        drop: share of them that goes.
        size: number of weights, normally distributed.

    Returns:
        Overlap in [0, 1].
    """
    params = {"kernel": mean + jax.random.normal(jax.random.key(0), (size, 1))}
    kept = [topology.masks(pruned(params, drop, by_sign=by_sign)) for by_sign in (False, True)]
    return float(topology.overlap(*kept))


def growth(rewires: int) -> topology.Plan:
    """A kernel under NE at the authors' rate, from sparsity 0.8."""
    rule = topology.neuroplastic_expansion(
        0.8, growth_end=rewires, interval=1, rate=0.008, prune="dormancy"
    )
    return topology.plan({"kernel": jnp.zeros((1000, 1000))}, {"kernel": rule})


def main() -> None:
    """Prints the comparison."""
    critic = make_critic(INPUTS, default_config("sac").critic.architecture())
    params = critic.init(jax.random.key(0))
    print(f"Density of SAC's critic at sparsity {SPARSITY}, by budgets of leaves and globally:")
    own, shared = (
        topology.statistics(pruned(params, SPARSITY, threshold=threshold))
        for threshold in ("leaf", "global")
    )
    for path in (path for path in own if path.startswith("q1/")):
        print(f"  {path:34s} {own[path].density:.2f} {shared[path].density:.2f}")
    print("Overlap of what SET keeps by sign and by magnitude (mean of weights, drop):")
    for mean in (0.0, 0.5, 1.0):
        row = (f"{drop}: {overlap_by_sign(mean, drop):.2f}" for drop in (0.1, 0.3, 0.5))
        print(f"  {mean}  {', '.join(row)}")
    print(f"NE at rate 0.008 after {REWIRES} rewires:\n{growth(REWIRES)}")


if __name__ == "__main__":
    main()
