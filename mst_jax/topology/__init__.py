"""Sparse training as one optax transformation: masks, regimes, exact prune-and-regrow.

Three lines on any training loop:

    plan = topology.plan(params, {".*kernel": topology.rigl(sparsity=0.8, end=75_000)})
    tx = topology.sparse(optax.adamw(3e-4), plan)
    params, opt_state = topology.init(tx, params, jax.random.key(0))

and from then on, at every step:

    updates, opt_state = tx.update(grads, opt_state, params, step=step)
    params = topology.apply_updates(params, updates, topology.masks(opt_state))

See ``docs/topology.md``.
"""

from mst_jax.topology import allocation, schedules
from mst_jax.topology.allocation import (
    Allocation,
    erdos_renyi,
    erdos_renyi_kernel,
    explicit,
    uniform,
)
from mst_jax.topology.compact import Shared, SharedMask, densified, value_and_grad, values_of
from mst_jax.topology.conformance import check_regime, trace_rewires
from mst_jax.topology.count_tables import Table, Totals
from mst_jax.topology.flops import Costs, costs
from mst_jax.topology.gradual import (
    dense_then_rigl,
    gradual_growth,
    gradual_magnitude_pruning,
    granet,
    neuroplastic_expansion,
)
from mst_jax.topology.mask_tree import (
    DenseLeaf,
    apply,
    apply_updates,
    count,
    density,
    overlap,
)
from mst_jax.topology.moments import MomentPolicy, bias_corrected
from mst_jax.topology.planning import Plan, plan
from mst_jax.topology.regime import STORAGES, Regime, Sharing, Timing
from mst_jax.topology.regimes import dense, network_sparsity, rigl, set, snfs, static
from mst_jax.topology.registry import REGIMES, MakesRegime, NamedStructure, structure_named
from mst_jax.topology.renewal import renew
from mst_jax.topology.revival import topology_aware_revival
from mst_jax.topology.rigl_presets import RIGL_PRESETS, rigl_preset
from mst_jax.topology.scores import (
    Leaf,
    adam_gradient,
    average_gradient,
    dormancy,
    gradient,
    magnitude,
    random,
)
from mst_jax.topology.selection import top_k
from mst_jax.topology.state import LeafHistory, SparseState, check, masks, states
from mst_jax.topology.stats import LeafStatistics, degree_histogram, degrees, statistics
from mst_jax.topology.storage import load_masks, save_masks
from mst_jax.topology.structures import (
    Structure,
    block,
    ensemble,
    fan_in,
    n_of_m,
    shared_fan_in,
    tied,
    unstructured,
)
from mst_jax.topology.sweeps import sweep
from mst_jax.topology.tables import Difference, LeafDifference, TextTable, diff, summary
from mst_jax.topology.targets import update_target
from mst_jax.topology.transform import init, restart, sparse

__all__ = [
    "REGIMES",
    "RIGL_PRESETS",
    "STORAGES",
    "Allocation",
    "Costs",
    "DenseLeaf",
    "Difference",
    "Leaf",
    "LeafDifference",
    "LeafHistory",
    "LeafStatistics",
    "MakesRegime",
    "MomentPolicy",
    "NamedStructure",
    "Plan",
    "Regime",
    "Shared",
    "SharedMask",
    "Sharing",
    "SparseState",
    "Structure",
    "Table",
    "TextTable",
    "Timing",
    "Totals",
    "adam_gradient",
    "allocation",
    "apply",
    "apply_updates",
    "average_gradient",
    "bias_corrected",
    "block",
    "check",
    "check_regime",
    "costs",
    "count",
    "degree_histogram",
    "degrees",
    "dense",
    "dense_then_rigl",
    "densified",
    "density",
    "diff",
    "dormancy",
    "ensemble",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "explicit",
    "fan_in",
    "gradient",
    "gradual_growth",
    "gradual_magnitude_pruning",
    "granet",
    "init",
    "load_masks",
    "magnitude",
    "masks",
    "n_of_m",
    "network_sparsity",
    "neuroplastic_expansion",
    "overlap",
    "plan",
    "random",
    "renew",
    "restart",
    "rigl",
    "rigl_preset",
    "save_masks",
    "schedules",
    "set",
    "shared_fan_in",
    "snfs",
    "sparse",
    "states",
    "static",
    "statistics",
    "structure_named",
    "summary",
    "sweep",
    "tied",
    "top_k",
    "topology_aware_revival",
    "trace_rewires",
    "uniform",
    "unstructured",
    "update_target",
    "value_and_grad",
    "values_of",
]
