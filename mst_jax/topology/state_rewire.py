"""The rewires of an optimizer's state: one conditional for every group of leaves."""

import jax

from mst_jax.topology import activity as activity_lib
from mst_jax.topology import compact, compact_rewire
from mst_jax.topology import rewire as rewire_lib
from mst_jax.topology.activity import Activity
from mst_jax.topology.compact_rewire import Loss
from mst_jax.topology.mask_tree import PyTree, is_sentinel, named_leaves, path_of
from mst_jax.topology.planning import Group
from mst_jax.topology.scores import Leaf
from mst_jax.topology.state import LeafHistory, SparseState


def rewired(
    group: Group,
    g: int,
    state: SparseState,
    gradients: PyTree,
    params: PyTree,
    step: jax.Array,
    activity: Activity | None,
    loss: Loss | None,
) -> tuple[SparseState, dict[str, jax.Array]]:
    """The state with the masks of this step, rewired if the group's timing says so.

    Args:
        group: the leaves.
        g: its number in the plan.
        state: with their masks.
        gradients: shaped as what is trained of the parameters.
        params: parameter tree.
        step: int32 scalar, never batched.
        activity: what ``update`` was given.
        loss: what ``update`` was given.

    Returns:
        The state, and path -> gradient at the weights that are there now, of the group's kernels in
        compact storage.

    Raises:
        ValueError: leaves that share their counts are not all there, or activity is missing.
    """
    assert group.timing is not None and state.key is not None  # of a group that moves
    is_due, row = rewire_lib.due(group.timing, step)
    masks = named_leaves(state.masks, is_leaf=compact.is_shared_mask)
    weights, slopes = named_leaves(compact.values_of(params)), named_leaves(gradients)
    paths = [e.path for e in group.entries if (e.drops or e.grows) and e.path in masks]
    if not paths:  # hidden by optax.masked or optax.partition
        return state, {}
    if group.sharing is not None and len(paths) < len(group.entries):
        hidden = next(e.path for e in group.entries if e.path not in paths)
        raise ValueError(
            f"{hidden!r} shares its rule's counts by score with {paths[0]!r}, but is hidden from "
            f"this optimizer: give both to one sparse(), or make a rule for each"
        )
    activity_lib.require(group, activity)
    run_key = state.key
    old = {path: masks[path] for path in paths}
    past = {path: state.history[path] for path in paths if path in state.history}
    stored = [entry for entry in group.entries if entry.compact and entry.path in old]
    unmoved = {entry.path: slopes[entry.path] for entry in stored}

    def rewire() -> tuple[dict[str, PyTree], dict[str, LeafHistory], dict[str, jax.Array]]:
        key = jax.random.fold_in(run_key, step)
        neurons = activity_lib.neurons(group, activity)
        keys = {path: rewire_lib.leaf_key(key, path) for path in paths}
        leaves = {
            path: Leaf(
                weight=weights[path],
                gradient=slopes[path],
                average=state.averages.get(path),
                mask=old[path],
                key=keys[path],
                square=state.squares.get(path),
                activity=neurons.get(path),
            )
            for path in paths
            if path not in unmoved
        }
        own, counts = group, state.tables[g]
        if stored:
            leaves |= compact_rewire.leaves_of_units(stored, params, old, keys, loss)
            own = compact_rewire.as_units(group)
            counts = compact_rewire.counts_of_units(group, counts)
        new: dict[str, PyTree] = dict(rewire_lib.rewire_group(own, counts, row, leaves))
        moved = {path: compact_rewire.grown(old[path], new[path]) for path in unmoved}
        new |= moved
        history = {
            path: LeafHistory(initial, old[path], explored | new[path])
            for path, (initial, _, explored) in past.items()
        }
        return new, history, compact_rewire.gradients_at(loss, params, moved)

    new, history, slopes = jax.lax.cond(is_due, rewire, lambda: (old, past, unmoved))
    masks = jax.tree_util.tree_map_with_path(
        lambda path, mask: new.get(path_of(path), mask),
        state.masks,
        is_leaf=compact.is_shared_mask,
    )
    return state._replace(masks=masks, history=state.history | history), slopes


def staying(params: PyTree, masks: PyTree) -> PyTree:
    """The masks, with flags of the values that were there before for kernels in compact storage."""
    named = named_leaves(params, is_leaf=compact.is_shared)

    def one(path: tuple, mask: PyTree) -> PyTree:
        if not compact.is_shared_mask(mask):
            return mask
        return compact.survivors(named[path_of(path)], mask)

    return jax.tree_util.tree_map_with_path(one, masks, is_leaf=is_sentinel)


def replaced(tree: PyTree, leaves: dict[str, jax.Array]) -> PyTree:
    """A tree with other leaves at some paths."""
    if not leaves:
        return tree
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaves.get(path_of(path), leaf), tree
    )
