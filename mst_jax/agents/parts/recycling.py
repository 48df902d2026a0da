"""ReDo: units that have gone silent begin again (Sokar et al. 2023, arXiv 2302.12902, §5).

A unit is dormant if its mean |output| on a batch is at most a share of its layer's mean. Its
incoming weights and bias are drawn anew, its outgoing weights become zero, so that what the network
computes does not change with them, and the optimizer forgets both. Masks stay: what is outside them
is zero whatever was drawn (docs/specs/plasticity.md §1).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax.networks import readers
from mst_jax.topology.mask_tree import named_leaves, path_of

Tree = Any


def dormant(strength: jax.Array, threshold: float) -> jax.Array:
    """Which units of a layer are dormant.

    Args:
        strength: mean |output| of each unit (units,).
        threshold: tau, a share of the layer's mean.

    Returns:
        bool (units,); none where a strength is not finite.
    """
    return strength / (jnp.mean(strength) + 1e-9) <= threshold


def recycled(
    params: Tree, fresh: Tree, strengths: Mapping[str, jax.Array], threshold: float
) -> tuple[Tree, Tree]:
    """A module's parameters with its dormant units recycled.

    An entry that leads from one dormant unit into another becomes zero.

    Args:
        params: of one seed.
        fresh: the same tree, newly initialised and unmasked.
        strengths: path of a hidden layer's kernel -> mean |output| of its units (units,). Layers
            that no kernel reads (see `networks.readers`) are left alone.
        threshold: see `dormant`.

    Returns:
        The parameters, unmasked where they are new, and the tree of bool that says where.
    """
    leaves = named_leaves(params)
    incoming = {path: jnp.zeros(jnp.shape(leaf), bool) for path, leaf in leaves.items()}
    outgoing = dict(incoming)
    for path, behind in readers({path: jnp.shape(leaf) for path, leaf in leaves.items()}).items():
        if path not in strengths:
            continue
        units = dormant(strengths[path], threshold)
        bias = path.removesuffix("kernel") + "bias"
        for own in (path, bias):
            if own in incoming:
                incoming[own] |= units
        for reader in behind:
            # Features of a flattened picture are its places, and within each its channels.
            rows = jnp.tile(units, leaves[reader].shape[-2] // units.size)
            outgoing[reader] |= rows[:, None]

    def one(path: tuple, weight: jax.Array, new: jax.Array) -> jax.Array:
        name = path_of(path)
        return jnp.where(outgoing[name], 0.0, jnp.where(incoming[name], new, weight))

    changed = jax.tree_util.tree_map_with_path(
        lambda path, _: incoming[path_of(path)] | outgoing[path_of(path)], params
    )
    return jax.tree_util.tree_map_with_path(one, params, fresh), changed
