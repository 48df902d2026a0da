"""Leaf counts decided at the rewire, where leaves share a rule's counts by score."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mst_jax.topology.apportion import apportion, as_weights
from mst_jax.topology.count_tables import Totals
from mst_jax.topology.regime import Regime, Sharing
from mst_jax.topology.scores import Leaf
from mst_jax.topology.selection import top_k, top_k_counts


def decide(
    regime: Regime, sharing: Sharing, totals: Totals, row: jax.Array, leaves: Sequence[Leaf]
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """What each leaf keeps and has afterwards, such that all together have what the plan says.

    Args:
        regime: the regime of all leaves.
        sharing: how they share their counts.
        totals: its counts, on device.
        row: int32 scalar, row of the counts.
        leaves: the leaves in the order of the plan.

    Returns:
        Masks from which the leaves drop (what the threshold left), and int32 ``[leaves]`` twice:
        active weights of each leaf that survive, and active weights afterwards.
    """
    masks = [leaf.mask for leaf in leaves]
    active = _sizes(masks)
    if sharing.threshold is not None:
        scores = [sharing.threshold(leaf) for leaf in leaves]
        active = top_k_counts(scores, totals.threshold[row], masks)
        # A threshold on the drop score itself need not be applied: the drop will choose the same.
        if sharing.threshold is not regime.drop_score:
            masks = [
                top_k(score, count, mask) | (mask & (score > sharing.spared))
                for score, count, mask in zip(scores, active, masks, strict=True)
            ]
            active = _sizes(masks)
    before = jnp.sum(active) if sharing.threshold is None else totals.threshold[row]
    keep = active - apportion(before - totals.keep[row], active, active)
    if sharing.growth == "own":
        return masks, keep, active
    if sharing.growth == "plan":
        return masks, keep, totals.target[row]
    room = jnp.array([math.prod(leaf.mask.shape) for leaf in leaves], jnp.int32) - keep
    means = jnp.stack([_mean(regime.grow_score(leaf), leaf.mask) for leaf in leaves])
    missing = jnp.sum(totals.target[row]) - jnp.sum(keep)
    return masks, keep, keep + apportion(missing, as_weights(means), room)


def drop_by_sign(leaf: Leaf, scores: jax.Array, keep: jax.Array) -> jax.Array:
    """Drops the same share of the negative active weights and of the others (zero among them).

    Args:
        leaf: the leaf's arrays.
        scores: the drop score, an array like the leaf.
        keep: int32 scalar, active weights that survive.

    Returns:
        The mask of the survivors; drops are shared by largest remainder, equal ones going first to
        the weights that are not negative.
    """
    negative = leaf.mask & (leaf.weight < 0)
    signs = (leaf.mask & ~negative, negative)
    active = _sizes(signs)
    kept = active - apportion(jnp.sum(active) - keep, active, active)
    return top_k(scores, kept[0], signs[0]) | top_k(scores, kept[1], signs[1])


def _sizes(masks: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.sum(mask, dtype=jnp.int32) for mask in masks])


def _mean(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the active weights, float32; 0 if there are none."""
    total = jnp.sum(jnp.where(mask, scores, 0), dtype=jnp.float32)
    return total / jnp.maximum(jnp.sum(mask), 1)
