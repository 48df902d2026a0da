"""Sparse training as one optax transformation: masks, regimes, exact prune-and-regrow.

Three lines on any training loop::

    plan = topology.plan(params, {".*kernel": topology.rigl(sparsity=0.8, end=75_000)})
    tx = topology.sparse(optax.adamw(3e-4), plan)
    params, opt_state = topology.init(tx, params, jax.random.key(0))

and ``tx.update(grads, opt_state, params, step=step)`` from then on. See ``docs/topology.md``.
"""

from mst_jax.topology.allocation import (
    Allocation,
    erdos_renyi,
    erdos_renyi_kernel,
    explicit,
    uniform,
)
from mst_jax.topology.masks import DenseLeaf, apply, count, density, overlap, summary
from mst_jax.topology.plan import Plan, Table, plan
from mst_jax.topology.regimes import Regime, Timing, dense, rigl, static
from mst_jax.topology.scores import Leaf, average_gradient, gradient, magnitude, random
from mst_jax.topology.storage import load_masks, save_masks
from mst_jax.topology.structures import ensemble, fan_in, n_of_m, unstructured
from mst_jax.topology.transform import SparseState, check, init, masks, sparse, states

__all__ = [
    "Allocation",
    "DenseLeaf",
    "Leaf",
    "Plan",
    "Regime",
    "SparseState",
    "Table",
    "Timing",
    "apply",
    "average_gradient",
    "check",
    "count",
    "dense",
    "density",
    "ensemble",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "explicit",
    "fan_in",
    "gradient",
    "init",
    "load_masks",
    "magnitude",
    "masks",
    "n_of_m",
    "overlap",
    "plan",
    "random",
    "rigl",
    "save_masks",
    "sparse",
    "states",
    "static",
    "summary",
    "uniform",
    "unstructured",
]
