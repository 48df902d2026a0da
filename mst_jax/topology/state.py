"""The state of sparse training inside an optimizer state, and how to find it there."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mst_jax.topology.compact import densified, is_shared, is_shared_mask
from mst_jax.topology.count_tables import Table, Totals
from mst_jax.topology.mask_tree import (
    DenseLeaf,
    PyTree,
    expand,
    is_sentinel,
    merge,
    named_leaves,
)
from mst_jax.topology.moments import Ages
from mst_jax.topology.planning import Group, LeafPlan, Plan
from mst_jax.topology.regime import Regime
from mst_jax.topology.structures import Structure

_TRANSPARENT = (
    optax.MaskedState,
    optax.PartitionState,
    optax.InjectHyperparamsState,
    optax.InjectStatefulHyperparamsState,
)


class LeafHistory(NamedTuple):
    """Where a leaf's topology has been (``sparse(..., track=True)``).

    Attributes:
        initial: bool, the first mask.
        previous: bool, the mask before the last rewire.
        explored: bool, positions that were ever active (in-time over-parameterisation, Liu et al.
            2021).
    """

    initial: jax.Array
    previous: jax.Array
    explored: jax.Array


class SparseState(NamedTuple):
    """State of ``sparse``; only arrays, so it can be vmapped, donated and saved.

    Attributes:
        inner: state of the wrapped optimizer.
        masks: mask tree (`Undrawn` nodes before ``init``; `SharedMask` of what is in compact
            storage).
        tables: the plan's counts, int32, one `Table` or `Totals` per group of leaves.
        key: typed key for random scores; None if the topology never changes.
        averages: path -> float32 average of the dense gradient, for regimes that ask for it.
        ages: ages of weights, if the moment policy needs them.
        history: path -> `LeafHistory`, if tracked.
        squares: path -> float32 average of the squared gradient, for regimes that ask for it.
    """

    inner: optax.OptState
    masks: PyTree
    tables: tuple[Table | Totals, ...]
    key: jax.Array | None
    averages: dict[str, jax.Array]
    ages: Ages | None
    history: dict[str, LeafHistory]
    squares: dict[str, jax.Array]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Undrawn:
    """A mask that has not been drawn yet: a node without arrays that says how to draw it."""

    path: str
    shape: tuple[int, ...]
    group: int
    column: int
    regime: Regime
    fan_in: int | None  # of a kernel in compact storage


def states(opt_state: optax.OptState) -> list[SparseState]:
    """Every `SparseState` in an optimizer state, in tree order."""
    return [leaf for leaf in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(leaf)]


def map_states(
    function: Callable[[SparseState], SparseState], opt_state: optax.OptState
) -> optax.OptState:
    """Applies a function to every `SparseState` in an optimizer state.

    Args:
        function: state -> state.
        opt_state: any optax state.

    Returns:
        The optimizer state with the results in place.
    """
    return jax.tree.map(
        lambda node: function(node) if _is_state(node) else node, opt_state, is_leaf=_is_state
    )


def masks(opt_state: optax.OptState, params: PyTree | None = None) -> PyTree:
    """The mask tree of an optimizer state, with the structure of the parameters.

    Args:
        opt_state: state that contains at least one `SparseState`.
        params: the parameters; needed only where ``optax.masked`` or ``optax.partition`` hide whole
            subtrees, whose structure the state does not know.

    Returns:
        Mask tree: bool arrays, `DenseLeaf` where nothing is masked, `SharedMask` where the storage
        is compact (`densified` makes bool arrays of them). Several wrappers (``optax.partition``)
        are merged.

    Raises:
        ValueError: no `SparseState`, masks not drawn, or two wrappers masking one leaf.
    """
    found = states(opt_state)
    if not found:
        raise ValueError("no SparseState in this optimizer state: wrap the optimizer in sparse()")
    for state in found:
        require_drawn(state)
    tree = functools.reduce(merge, [state.masks for state in found])
    if params is not None:
        return expand(tree, params)
    hidden = lambda m: is_sentinel(m) and not is_shared_mask(m)  # noqa: E731
    return jax.tree.map(lambda m: DenseLeaf() if hidden(m) else m, tree, is_leaf=is_sentinel)


def check(params: PyTree, opt_state: optax.OptState, plan: Plan | None = None) -> None:
    """Raises if parameters and topology disagree; call it now and then, on the host.

    Catches a transform placed after ``sparse``, parameters that were never masked, wrappers that
    must not surround it and, given the plan, counts that it does not contain and masks without its
    structure. Leading axes (seeds) are fine.

    Args:
        params: parameter tree.
        opt_state: its optimizer state.
        plan: the plan, to check the counts as well (not with Bernoulli masks or other tables).

    Raises:
        ValueError: naming the first leaf that is wrong.
    """
    refuse_wrappers(opt_state)
    stored = expand(masks(opt_state), params)
    _check_inputs(params, stored)
    leaves = named_leaves(densified(params))
    named_masks = named_leaves(densified(stored))
    for path, mask in named_masks.items():
        outside = np.asarray(leaves[path])[~np.asarray(mask)]
        broken = outside.size - np.count_nonzero(np.isfinite(outside.astype(np.float32)))
        if broken:
            raise ValueError(
                f"{path!r} has {broken} weights outside its mask that are NaN or infinite, as they "
                f"were when they were dropped: use topology.apply_updates, which selects, in place "
                f"of optax.apply_updates, which adds"
            )
        if np.any(outside != 0):
            raise ValueError(
                f"{path!r} has {np.count_nonzero(outside)} non-zero weights outside its mask: use "
                f"topology.init, and let sparse() be the last transform that touches updates"
            )
    if plan is None:
        return
    for path, (g, column, entry) in plan.entries().items():
        if path not in named_masks:
            raise ValueError(f"{path!r} is sparse in this plan and dense here: not the same plan")
        axes = tuple(range(-len(entry.shape), 0))
        counts = np.count_nonzero(np.asarray(named_masks[path]), axis=axes)
        if plan.groups[g].sharing is not None:  # below, all leaves together
            continue
        allowed = plan.groups[g].table.target[:, column]
        if not np.isin(counts, allowed).all():
            raise ValueError(
                f"{path!r} has {np.unique(counts).tolist()} active weights, a number that is not "
                f"in its plan ({allowed.min()} to {allowed.max()})"
            )
        _check_structure(entry, named_masks[path])
    for group in plan.groups:
        if group.sharing is not None:
            _check_total(group, named_masks)


def _check_inputs(params: PyTree, masks: PyTree) -> None:
    """Raises unless kernels in compact storage have the inputs that the optimizer's state says."""
    named = named_leaves(masks, is_leaf=is_shared_mask)
    for path, kernel in named_leaves(params, is_leaf=is_shared).items():
        if not is_shared(kernel):
            continue
        index = np.asarray(kernel.index)
        if not np.array_equal(index, named[path].index):
            raise ValueError(
                f"{path!r} has other inputs than its optimizer's state: use topology.apply_updates"
            )
        rows = np.sort(index, axis=-1)
        outside = (rows < 0) | (rows >= kernel.inputs)
        if outside.any() or (np.diff(rows, axis=-1) == 0).any():
            raise ValueError(f"{path!r} has a tile with an input twice, or one that is not there")


def _check_structure(entry: LeafPlan, mask: jax.Array) -> None:
    """Raises unless units are whole and every group has as many of them."""
    structure, masks = entry.regime.structure, jnp.reshape(mask, (-1, *entry.shape))
    if structure == Structure():
        return
    units = jax.vmap(structure.split)(masks)
    joined = jax.vmap(lambda own: structure.join(own, entry.shape))(units)
    if np.any(np.asarray(joined != masks)):
        raise ValueError(f"{entry.path!r} has parts of units: its structure is {structure.name}")
    counts = np.asarray(jnp.sum(units, axis=-2)).reshape(len(masks), -1)
    if np.any(counts != counts[:, :1]):
        raise ValueError(
            f"{entry.path!r} has {counts.min()} to {counts.max()} active units in its groups: "
            f"its structure is {structure.name}, as many in every group"
        )


def _check_total(group: Group, masks: dict[str, jax.Array]) -> None:
    """Raises unless leaves that share their counts have one of the plan's numbers together."""
    counts = sum(
        np.count_nonzero(np.asarray(masks[e.path]), axis=tuple(range(-len(e.shape), 0)))
        for e in group.entries
    )
    allowed = group.table.target.sum(axis=1)
    if not np.isin(counts, allowed).all():
        first = group.entries[0]
        raise ValueError(
            f"{first.path!r} and the other leaves of its rule have {np.unique(counts).tolist()} "
            f"active weights together, a number that is not in the plan ({allowed.min()} to "
            f"{allowed.max()})"
        )


def require_drawn(state: SparseState) -> None:
    """Raises ``ValueError`` if the masks of a state have not been drawn."""
    if any(map(is_undrawn, jax.tree.leaves(state.masks, is_leaf=is_undrawn))):
        raise ValueError(
            "masks are not drawn: make the optimizer state with topology.init(tx, params, key), "
            "not with tx.init(params)"
        )


def refuse_wrappers(opt_state: optax.OptState) -> None:
    """Raises ``ValueError`` for wrappers around ``sparse``, or inside it, that would break it.

    Only those that hand its updates on as they are may surround it. ``MultiSteps``, for one, drops
    the rewires of all but its last step, and ``apply_if_finite`` turns the conditional into a
    select. ``lookahead`` fits nowhere: it has two copies of the parameters. Containers of one's own
    are not judged.
    """
    found = states(opt_state)
    if any(states(state.inner) for state in found):
        raise ValueError("a sparse() inside a sparse(): remove one; a plan may have many rules")
    if found and _lookaheads(opt_state):
        raise ValueError(
            "lookahead cannot be combined with sparse(), as its slow weights average several "
            "topologies: keep such an average with topology.update_target"
        )

    def is_wrapper(node: PyTree) -> bool:
        return type(node).__module__.startswith("optax.") and not isinstance(node, _TRANSPARENT)

    for node in jax.tree.leaves(opt_state, is_leaf=lambda x: is_wrapper(x) or _is_state(x)):
        if is_wrapper(node) and states(node):
            name = type(node).__name__.removesuffix("State")
            raise ValueError(f"{name} must be inside sparse(), around the inner optimizer")


def _lookaheads(tree: PyTree) -> list[PyTree]:
    """States of ``lookahead`` in a tree."""
    is_one = lambda node: isinstance(node, optax.LookaheadState)  # noqa: E731
    return [node for node in jax.tree.leaves(tree, is_leaf=is_one) if is_one(node)]


def is_undrawn(node: PyTree) -> bool:
    """True for the placeholder of a mask."""
    return isinstance(node, Undrawn)


def _is_state(node: PyTree) -> bool:
    return isinstance(node, SparseState)
