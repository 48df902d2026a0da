"""The optax wrapper: sparse training around any optimizer, on any training loop.

``update`` takes the *dense* gradient and the module's clock. A conditional on that clock returns
the new masks and nothing else; everything that follows from them is element-wise ``where`` that
fuses with the optimizer's arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mst_jax.topology import masks as masks_lib
from mst_jax.topology import moments as moments_lib
from mst_jax.topology import rewire as rewire_lib
from mst_jax.topology.masks import DenseLeaf, PyTree, is_sentinel, named_leaves, where
from mst_jax.topology.plan import Group, Plan, Table
from mst_jax.topology.regimes import Regime
from mst_jax.topology.scores import Leaf


class SparseState(NamedTuple):
    """State of :func:`sparse`; only arrays, so it can be vmapped, donated and saved.

    Attributes:
        inner: state of the wrapped optimizer.
        masks: mask tree (:class:`Undrawn` nodes before :func:`init`).
        tables: the plan's counts, int32, one :class:`Table` per group of leaves.
        key: typed key for random scores; None if the topology never changes.
        averages: path -> float32 average of the dense gradient, for regimes that ask for it.
    """

    inner: optax.OptState
    masks: PyTree
    tables: tuple[Table, ...]
    key: jax.Array | None
    averages: dict[str, jax.Array]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Undrawn:
    """A mask that has not been drawn yet: a node without arrays that says how to draw it."""

    path: str
    group: int
    column: int
    regime: Regime


def sparse(
    inner: optax.GradientTransformation, plan: Plan, *, moments: str = "zero"
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that it trains the plan's leaves sparsely.

    The last transform that touches updates must be this one: put clipping, ``MultiSteps`` and
    ``apply_if_finite`` inside; ``chain`` (as its last member), ``masked``, ``partition`` and
    ``inject_hyperparams`` may surround it. Create the state with :func:`init`.

    ``update(grads, state, params, step=step)`` needs the parameters, and, if the topology changes,
    the module's optimizer step: an int32 scalar that is *not* batched by ``vmap``. Its gradient is
    the dense one, which is what ``jax.grad`` gives when the forward pass does not multiply by a
    mask. A rewire step also performs the weight step.

    Args:
        inner: any optax optimizer.
        plan: from :func:`mst_jax.topology.plan`.
        moments: slots of newly grown weights: ``zero`` makes them those of a fresh optimizer (RigL,
            Evci et al. 2020), ``keep`` carries what is left from before.

    Returns:
        An optax transformation with state :class:`SparseState`.

    Raises:
        ValueError: unknown moment policy.
    """
    if moments not in moments_lib.POLICIES:
        raise ValueError(f"moments must be one of {moments_lib.POLICIES}, got {moments!r}.")
    inner = optax.with_extra_args_support(inner)
    dynamic = [(g, group) for g, group in enumerate(plan.groups) if _moves(group)]

    def init_fn(params: PyTree) -> SparseState:
        return SparseState(
            inner=inner.init(params),
            masks=_undrawn(plan, params),
            tables=jax.tree.map(jnp.asarray, plan.tables),
            key=jax.random.key(0) if dynamic else None,
            averages=_zero_averages(plan, params),
        )

    def update_fn(
        updates: PyTree,
        state: SparseState,
        params: PyTree | None = None,
        *,
        step: jax.Array | None = None,
        **extra: PyTree,
    ) -> tuple[PyTree, SparseState]:
        if not plan.groups:
            extra = extra if step is None else extra | {"step": step}
            updates, inner_state = inner.update(updates, state.inner, params, **extra)
            return updates, state._replace(inner=inner_state)
        _require(state, params)
        averages = _averaged(plan, state.averages, updates)
        masks = state.masks
        for g, group in dynamic:
            masks = _rewired(group, g, masks, updates, averages, params, state, step)
        inner_state = state.inner
        if dynamic:
            params_in = masks_lib.apply(masks, params)
            if moments == "zero":
                changed = jax.tree.map(jnp.not_equal, masks, state.masks)
                inner_state = moments_lib.reset(inner, inner_state, params_in, changed)
        else:
            params_in = params
        extra = extra if step is None else extra | {"step": step}
        gradients = masks_lib.apply(masks, updates)
        updates, inner_state = inner.update(gradients, inner_state, params_in, **extra)
        # Outside the mask the update is -p, so that applying it leaves exactly zero.
        updates = jax.tree.map(lambda p, u, m: where(m, u, -p), params, updates, masks)
        return updates, state._replace(inner=inner_state, masks=masks, averages=averages)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def init(
    tx: optax.GradientTransformation,
    params: PyTree,
    key: jax.Array,
    tables: tuple[Table, ...] | None = None,
) -> tuple[PyTree, optax.OptState]:
    """Draws every mask in an optimizer's state and masks the parameters.

    Works wherever :func:`sparse` sits in ``tx``. For many seeds ``vmap`` over ``params`` and
    ``key``; for runs that differ in sparsity or drop fraction over ``tables`` too.

    Args:
        tx: optimizer that contains :func:`sparse` (or none: then its plain state is returned).
        params: parameter tree of one seed.
        key: typed key.
        tables: counts to use instead of the plan's, one :class:`Table` per group of leaves.

    Returns:
        ``(params, opt_state)``, the parameters exactly zero outside their masks.

    Raises:
        ValueError: ``tables`` do not fit the plan.
    """
    drawn: list[SparseState] = []

    def draw_one(state: SparseState) -> SparseState:
        used = state.tables if tables is None else _fitting(tables, state.tables)
        named = named_leaves(params)

        def leaf_mask(node: PyTree) -> PyTree:
            if not isinstance(node, Undrawn):
                return node
            active = used[node.group].target[0, node.column]
            leaf_key = rewire_lib.leaf_key(jax.random.fold_in(key, _DRAW), node.path)
            return rewire_lib.draw(node.regime, named[node.path], active, leaf_key)

        drawn_masks = jax.tree.map(leaf_mask, state.masks, is_leaf=_is_undrawn)
        state = state._replace(
            masks=drawn_masks,
            tables=used,
            key=None if state.key is None else jax.random.fold_in(key, _GROW),
        )
        drawn.append(state)
        return state

    _map_states(draw_one, tx.init(params))
    if not drawn:
        return params, tx.init(params)
    params = masks_lib.apply(_merged([state.masks for state in drawn]), params)
    # The inner state is made from the masked parameters: some optimizers keep copies of them.
    remaining = iter(drawn)
    return params, _map_states(
        lambda state: next(remaining)._replace(inner=state.inner), tx.init(params)
    )


def masks(opt_state: optax.OptState) -> PyTree:
    """The mask tree of an optimizer state, with the structure of the parameters.

    Args:
        opt_state: state that contains at least one :class:`SparseState`.

    Returns:
        Mask tree: bool arrays, :class:`DenseLeaf` where nothing is masked. Several wrappers
        (``optax.partition``) are merged.

    Raises:
        ValueError: no :class:`SparseState`, masks not drawn, or two wrappers masking one leaf.
    """
    found = states(opt_state)
    if not found:
        raise ValueError("No SparseState in this optimizer state: wrap the optimizer in sparse().")
    for state in found:
        _require_drawn(state)
    return _merged([state.masks for state in found])


def states(opt_state: optax.OptState) -> list[SparseState]:
    """Every :class:`SparseState` in an optimizer state, in tree order."""
    leaves = jax.tree.leaves(opt_state, is_leaf=_is_state)
    return [leaf for leaf in leaves if _is_state(leaf)]


def check(params: PyTree, opt_state: optax.OptState) -> None:
    """Raises if parameters and topology disagree; call it now and then, on the host.

    Catches a transform placed after :func:`sparse`, parameters that were never masked, and counts
    that are in no row of the plan. Leading axes (seeds) are fine.

    Args:
        params: parameter tree.
        opt_state: its optimizer state.

    Raises:
        ValueError: naming the first leaf that is wrong.
    """
    leaves = named_leaves(params)
    for path, mask in named_leaves(masks(opt_state), is_leaf=is_sentinel).items():
        if is_sentinel(mask):
            continue
        outside = np.asarray(leaves[path])[~np.asarray(mask)]
        if np.any(outside != 0):  # NaN is not 0 either
            raise ValueError(
                f"{path!r} has {np.count_nonzero(outside)} non-zero weights outside its mask: use "
                f"topology.init, and let sparse() be the last transform that touches updates."
            )


_DRAW, _GROW = 0, 1  # purposes of the run's key


def _moves(group: Group) -> bool:
    return any(entry.drops or entry.grows for entry in group.entries)


def _undrawn(plan: Plan, params: PyTree) -> PyTree:
    """Mask tree before drawing; checks that these are the plan's parameters."""
    leaves = named_leaves(params, is_leaf=is_sentinel)
    if not leaves:  # optax's placeholder for "any parameter tree"
        return params
    entries = plan.entries()
    shapes = dict(plan.dense) | {path: entry.shape for path, (_, _, entry) in entries.items()}
    given = {
        path: shapes.get(path) if is_sentinel(x) else np.shape(x) for path, x in leaves.items()
    }
    if given != shapes:
        path = next(p for p in [*given, *shapes] if given.get(p) != shapes.get(p))
        raise ValueError(
            f"These parameters are not the plan's: {path!r} has shape {given.get(path)} here and "
            f"{shapes.get(path)} in the plan; make the plan from the tree given to the optimizer."
        )

    def node(path: tuple[Any, ...], leaf: PyTree) -> PyTree:
        name = masks_lib.path_of(path)
        if is_sentinel(leaf):
            return leaf
        if name not in entries:
            return DenseLeaf()
        group, column, entry = entries[name]
        return Undrawn(name, group, column, entry.regime)

    return jax.tree_util.tree_map_with_path(node, params, is_leaf=is_sentinel)


def _zero_averages(plan: Plan, params: PyTree) -> dict[str, jax.Array]:
    present = named_leaves(params)
    return {
        path: jnp.zeros(entry.shape, jnp.float32)
        for path, (_, _, entry) in plan.entries().items()
        if entry.regime.average is not None and path in present
    }


def _averaged(
    plan: Plan, averages: dict[str, jax.Array], gradients: PyTree
) -> dict[str, jax.Array]:
    """Averages after one more gradient; entries that are not finite are left out of it."""
    if not averages:
        return averages
    named, entries = named_leaves(gradients), plan.entries()

    def one(path: str, average: jax.Array) -> jax.Array:
        decay, gradient = entries[path][2].regime.average, named[path].astype(jnp.float32)
        moved = decay * average + (1.0 - decay) * gradient
        return jnp.where(jnp.isfinite(gradient), moved, average)

    return {path: one(path, average) for path, average in averages.items()}


def _rewired(
    group: Group,
    index: int,
    masks: PyTree,
    gradients: PyTree,
    averages: dict[str, jax.Array],
    params: PyTree,
    state: SparseState,
    step: jax.Array | None,
) -> PyTree:
    """The mask tree after this step, rewired if the group's timing says so."""
    timing, counts = group.timing, state.tables[index]
    if step is None or jnp.ndim(step) != 0:
        raise ValueError(
            "update needs step=, the module's optimizer step, as one unbatched integer scalar: "
            f"got {step!r}."
        )
    step = jnp.asarray(step, jnp.int32)
    due = (step >= timing.start) & (step <= timing.end)
    due &= (step - timing.start) % timing.interval == 0
    row = jnp.clip((step - timing.start) // timing.interval + 1, 0, len(timing.steps))
    named_masks = named_leaves(masks, is_leaf=is_sentinel)
    named_params, named_grads = named_leaves(params), named_leaves(gradients)
    columns = {
        entry.path: (column, entry)
        for column, entry in enumerate(group.entries)
        if (entry.drops or entry.grows) and entry.path in named_params
    }

    def rewire() -> dict[str, jax.Array]:
        key = jax.random.fold_in(state.key, step)
        return {
            path: rewire_lib.rewire(
                entry.regime,
                Leaf(
                    named_params[path],
                    named_grads[path],
                    averages.get(path),
                    named_masks[path],
                    rewire_lib.leaf_key(key, path),
                ),
                counts.keep[row, column],
                counts.target[row, column],
                drops=entry.drops,
                grows=entry.grows,
            )
            for path, (column, entry) in columns.items()
        }

    new = jax.lax.cond(due, rewire, lambda: {path: named_masks[path] for path in columns})
    return jax.tree_util.tree_map_with_path(
        lambda path, mask: new.get(masks_lib.path_of(path), mask), masks
    )


def _require(state: SparseState, params: PyTree | None) -> None:
    if params is None:
        raise ValueError("update needs the parameters: tx.update(grads, state, params, step=step).")
    _require_drawn(state)


def _require_drawn(state: SparseState) -> None:
    if any(map(_is_undrawn, jax.tree.leaves(state.masks, is_leaf=_is_undrawn))):
        raise ValueError(
            "Masks are not drawn: make the optimizer state with topology.init(tx, params, key), "
            "not with tx.init(params)."
        )


def _is_undrawn(node: PyTree) -> bool:
    return isinstance(node, Undrawn)


def _is_state(node: PyTree) -> bool:
    return isinstance(node, SparseState)


def _map_states(
    function: Callable[[SparseState], SparseState], opt_state: optax.OptState
) -> optax.OptState:
    return jax.tree.map(
        lambda node: function(node) if _is_state(node) else node, opt_state, is_leaf=_is_state
    )


def _fitting(tables: tuple[Table, ...], own: tuple[Table, ...]) -> tuple[Table, ...]:
    shapes, wanted = jax.tree.map(jnp.shape, tables), jax.tree.map(jnp.shape, own)
    if shapes != wanted:
        raise ValueError(f"Tables of shapes {shapes} do not fit a plan of shapes {wanted}.")
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), tables)


def _merged(trees: list[PyTree]) -> PyTree:
    """One mask tree from those of several wrappers, each of which may hide leaves."""

    def one(*nodes: PyTree) -> PyTree:
        masks = [node for node in nodes if not is_sentinel(node)]
        if len(masks) > 1:
            raise ValueError("Two sparse() wrappers mask the same parameter: remove one.")
        return masks[0] if masks else DenseLeaf()

    return jax.tree.map(one, trees[0], *trees[1:], is_leaf=is_sentinel)
