"""What happens to the inner optimizer's per-weight slots (moments) of weights that change hands.

Works for any optax optimizer: ``optax.tree_map_params`` finds the slots, and a fresh
``inner.init`` says what they hold for a new weight (zero for Adam's moments, the initial
accumulator for Adagrad, the weight itself for schedule-free's ``z``).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mst_jax.topology.masks import PyTree, is_sentinel

POLICIES = ("zero", "keep")


def reset(
    inner: optax.GradientTransformation, state: PyTree, params: PyTree, changed: PyTree
) -> PyTree:
    """Slots of changed weights as a fresh optimizer would have them; all others untouched.

    Args:
        inner: the optimizer.
        state: its state.
        params: parameters, zero outside the new topology.
        changed: tree of bool arrays (sentinel at dense leaves), True where to reset.

    Returns:
        State of the same structure. Factored slots, whose shape is not the weight's, are kept.
    """

    def one(slot: PyTree, fresh: PyTree, mark: PyTree) -> PyTree:
        if not isinstance(mark, jax.Array) or mark.shape != jnp.shape(slot):
            return slot
        return jnp.where(mark, fresh, slot)

    return jax.tree.map(one, state, inner.init(params), marks(inner, state, changed))


def marks(inner: optax.GradientTransformation, state: PyTree, tree: PyTree) -> PyTree:
    """A tree like the optimizer's state carrying at every slot its weight's leaf of ``tree``.

    Args:
        inner: the optimizer.
        state: its state.
        tree: tree like the parameters (sentinels allowed).

    Returns:
        Tree with ``state``'s structure as prefix; sentinels at everything that is no slot.
    """
    nothing = optax.MaskedNode()
    return optax.tree_map_params(
        inner,
        lambda slot, leaf: slot if is_sentinel(slot) else leaf,
        state,
        tree,
        transform_non_params=lambda _: nothing,
        is_leaf=is_sentinel,
    )
