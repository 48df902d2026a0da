"""Drawing a topology and rewiring it, one leaf at a time."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp

from mst_jax.topology.regimes import Regime
from mst_jax.topology.scores import Leaf
from mst_jax.topology.selection import top_k
from mst_jax.topology.structures import Structure


def leaf_key(key: jax.Array, path: str) -> jax.Array:
    """Random key of one leaf: depends on its name only, not on its place in the tree.

    Args:
        key: typed key of the run.
        path: name of the leaf.

    Returns:
        Typed key.
    """
    return jax.random.fold_in(key, zlib.crc32(path.encode()))


def draw(regime: Regime, weight: jax.Array, active: jax.Array, key: jax.Array) -> jax.Array:
    """Initial mask of a leaf.

    Args:
        regime: its regime (``draw`` and ``structure`` are used).
        weight: the initial parameter, any shape.
        active: int32 scalar, number of active weights.
        key: typed key of the leaf.

    Returns:
        bool array like ``weight`` with exactly ``active`` True (on average, for ``bernoulli``).
    """
    if regime.draw == "bernoulli":
        return jax.random.uniform(key, weight.shape) < active / weight.size
    if regime.draw == "magnitude":
        scores = jnp.abs(weight)
    else:
        scores = jax.random.bits(key, weight.shape, jnp.uint32)
    return select(regime.structure, scores, active, jnp.ones(weight.shape, bool))


def rewire(
    regime: Regime,
    leaf: Leaf,
    keep: jax.Array,
    target: jax.Array,
    *,
    drops: bool = True,
    grows: bool = True,
) -> jax.Array:
    """One topology update of a leaf: ``top(keep | active)``, then ``top(rest | not kept)``.

    A position that is dropped may be grown again at once; it then stays active throughout, so its
    weight and its moments are untouched (as RigL's reference code; rigl issue 5).

    Args:
        regime: scores and structure.
        leaf: the leaf's arrays.
        keep: int32 scalar, active weights that survive.
        target: int32 scalar, active weights afterwards.
        drops: whether any update of the plan drops weights; if not, all active ones survive.
        grows: whether any update of the plan grows weights.

    Returns:
        The new mask with exactly ``target`` active weights.
    """
    kept = leaf.mask
    if drops:
        kept = select(regime.structure, regime.drop_score(leaf), keep, leaf.mask)
    if not grows:
        return kept
    # Counted, not taken from the table, so that a foreign mask is brought back to the plan.
    missing = target - jnp.sum(kept, dtype=jnp.int32)
    return kept | select(regime.structure, regime.grow_score(leaf), missing, ~kept)


def select(
    structure: Structure, scores: jax.Array, total: jax.Array, eligible: jax.Array
) -> jax.Array:
    """Mask of the ``total`` best eligible entries, an equal number in every group.

    Args:
        structure: which entries compete.
        scores: array of any shape.
        total: int32 scalar, number of entries to choose; a multiple of the number of groups.
        eligible: bool array like ``scores``.

    Returns:
        bool array like ``scores``.
    """
    groups = structure.groups(scores.shape)
    if groups == 1:
        return top_k(scores, total, eligible)
    # A histogram per group would be mostly empty bins.
    each = jax.vmap(lambda s, e: top_k(s, total // groups, e, method="bisect"))
    return structure.join(each(structure.split(scores), structure.split(eligible)), scores.shape)
