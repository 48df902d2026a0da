"""Drawing a topology and rewiring it, one leaf at a time."""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mst_jax.topology.count_tables import Table, Totals
from mst_jax.topology.groups import best_of_groups, fill_groups
from mst_jax.topology.planning import Group, LeafPlan
from mst_jax.topology.regime import Regime, Timing
from mst_jax.topology.scores import Leaf
from mst_jax.topology.selection import top_k, unsharded
from mst_jax.topology.shared import decide, drop_by_sign
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
    everywhere = jnp.ones_like(weight, bool)  # where a mesh is explicit, laid out as the weight
    if regime.draw == "bernoulli":
        chosen = jax.random.uniform(key, weight.shape) < active / weight.size
        return everywhere & regime.structure.join(regime.structure.split(chosen), weight.shape)
    if regime.draw == "magnitude":
        scores = jnp.abs(weight)
    else:
        scores = jax.random.bits(key, weight.shape, jnp.uint32)
    return select(regime.structure, scores, active, everywhere)


def select(
    structure: Structure, scores: jax.Array, total: jax.Array, eligible: jax.Array
) -> jax.Array:
    """Mask of the ``total`` best eligible entries, as many in every group as whole units allow.

    Of the u units of g groups each group gets ``u // g``; one more goes to the ``u % g`` groups
    whose next unit has the largest score.

    Args:
        structure: which entries compete.
        scores: array of any shape.
        total: int32 scalar, number of entries to choose, a multiple of a unit.
        eligible: bool array like ``scores``, whole units, with as many True in every group.

    Returns:
        bool array like ``scores``.
    """
    shape = eligible.shape
    groups, unit = structure.groups(shape), structure.unit_of(shape)
    if groups == unit == 1:
        return top_k(scores, total, eligible)
    choose = top_k if groups == 1 else best_of_groups

    def grouped(scores: jax.Array, total: jax.Array, eligible: jax.Array) -> jax.Array:
        units = structure.split(scores), total // unit, structure.split(eligible)
        return structure.join(choose(*units), shape)

    return unsharded(grouped, scores, total, eligible)


def fill(structure: Structure, scores: jax.Array, target: jax.Array, kept: jax.Array) -> jax.Array:
    """``kept`` with the best of the rest, until every group has its share of ``target``.

    What is missing is counted, not taken from the table, so that a foreign mask is brought back to
    the plan.

    Args:
        structure: which entries compete.
        scores: array of any shape.
        target: int32 scalar, a multiple of the groups times the entries of a unit.
        kept: bool array like ``scores``, whole units.

    Returns:
        bool array like ``scores``.
    """
    shape = kept.shape
    groups, unit = structure.groups(shape), structure.unit_of(shape)
    if groups == unit == 1:
        return _fill_one(scores, target, kept)
    complete = _fill_one if groups == 1 else fill_groups

    def grouped(scores: jax.Array, target: jax.Array, kept: jax.Array) -> jax.Array:
        share = target // (groups * unit)
        return structure.join(
            complete(structure.split(scores), share, structure.split(kept)), shape
        )

    return unsharded(grouped, scores, target, kept)


def _fill_one(scores: jax.Array, target: jax.Array, kept: jax.Array) -> jax.Array:
    """`fill` where all entries compete."""
    missing = target - jnp.sum(kept, dtype=jnp.int32)
    return kept | top_k(scores, missing, ~kept)


def rewire(entry: LeafPlan, leaf: Leaf, keep: jax.Array, target: jax.Array) -> jax.Array:
    """One topology update of a leaf: ``top(keep | active)``, then ``top(rest | not kept)``.

    A position that is dropped may be grown again at once; it then stays active throughout, so its
    weight and its moments are untouched (as in RigL's reference code, rigl issue 5).

    Args:
        entry: the leaf's entry in the plan.
        leaf: the leaf's arrays.
        keep: int32 scalar, active weights that survive.
        target: int32 scalar, active weights afterwards.

    Returns:
        The new mask with exactly ``target`` active weights.
    """
    regime, kept = entry.regime, leaf.mask
    if entry.drops:
        scores = regime.drop_score(leaf)
        kept = (
            drop_by_sign(leaf, scores, keep)
            if regime.by_sign
            else select(regime.structure, scores, keep, leaf.mask)
        )
    if not entry.grows:
        return kept
    return fill(regime.structure, regime.grow_score(leaf), target, kept)


def rewire_group(
    group: Group, counts: Table | Totals, row: jax.Array, leaves: Mapping[str, Leaf]
) -> dict[str, jax.Array]:
    """One topology update of all leaves that share a timing.

    Args:
        group: the group of the plan.
        counts: its table, on device.
        row: int32 scalar, row of the table.
        leaves: path -> arrays, of the leaves to rewire; all of them, if they share their counts.

    Returns:
        path -> new mask.
    """
    if isinstance(counts, Totals) and group.sharing is not None:
        regime, own = group.entries[0].regime, [leaves[entry.path] for entry in group.entries]
        masks, keep, target = decide(regime, group.sharing, counts, row, own)
        left = zip(group.entries, own, masks, strict=True)
        leaves = {entry.path: leaf._replace(mask=mask) for entry, leaf, mask in left}
    else:
        keep, target = counts.keep[row], counts.target[row]
    new: dict[str, jax.Array] = {}
    finished = jnp.ones((), bool)
    for column, entry in enumerate(group.entries):
        if entry.path not in leaves:
            continue
        leaf = leaves[entry.path]
        leaf = leaf._replace(mask=leaf.mask & finished)
        mask = rewire(entry, leaf, keep[column], target[column])
        new[entry.path] = mask
        # Always True, but XLA only knows once this leaf is done: side by side, the sort keys of all
        # leaves would be alive at once, at 3 times the memory; optimization_barrier is ignored.
        finished = row > jnp.any(mask).astype(jnp.int32) - 2
    return new


def due(timing: Timing, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether a rewire is due, and its row in the plan's table.

    Args:
        timing: when the group is rewired.
        step: int32 scalar.

    Returns:
        bool scalar and int32 scalar; the row is clamped to the table.
    """
    since = step - timing.start
    inside = (step >= timing.start) & (step <= timing.end)
    row = jnp.clip(since // timing.interval + 1, 0, len(timing.steps))
    return inside & (since % timing.interval == 0), row
