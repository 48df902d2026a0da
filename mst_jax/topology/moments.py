"""What becomes of the inner optimizer's per-weight slots (moments) of weights that come and go.

Works for any optax optimizer: ``optax.tree_map_params`` finds the slots (or, where it fails, the
parameters' tree structure does), and a fresh ``inner.init`` says what they hold for a new weight
(zero for Adam's moments, the initial accumulator for Adagrad, the weight itself for schedule-free's
``z``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mst_jax.topology.mask_tree import PyTree, inside, is_sentinel, named_leaves, path_of

_OLD = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class MomentPolicy:
    """Slots of newly grown weights.

    Attributes:
        name: ``zero``, ``keep`` or ``bias_corrected``.
        b1: decay of Adam's first moment, for ``bias_corrected``.
        b2: decay of Adam's second moment, for ``bias_corrected``.
    """

    name: str
    b1: float = 0.9
    b2: float = 0.999


class Ages(NamedTuple):
    """How long weights have been active, for ``bias_corrected``.

    Attributes:
        updates: int32 scalar, updates since ``init``.
        leaves: path -> uint16, updates since the weight grew (65,535 for old ones, 0 if inactive).
    """

    updates: jax.Array
    leaves: dict[str, jax.Array]


def bias_corrected(b1: float = 0.9, b2: float = 0.999) -> MomentPolicy:
    """Slots start afresh and so does Adam's bias correction, weight by weight.

    Zeroing Adam's moments while its bias correction thinks of a long history makes a regrown weight
    move 3 times the learning rate in its first step and 6.5 times in its tenth. Here the update of
    a weight of age a at count t is multiplied by

        (1 - b1^t) / (1 - b1^a) * sqrt((1 - b2^a) / (1 - b2^t)),

    which makes it that of an Adam started when the weight grew (epsilon and weight decay apart).

    Args:
        b1: the inner optimizer's first decay.
        b2: its second.

    Returns:
        The policy; costs two bytes a weight.
    """
    return MomentPolicy("bias_corrected", b1, b2)


def named(policy: str | MomentPolicy) -> MomentPolicy:
    """Policy from its name; a policy passes through.

    Args:
        policy: ``zero``, ``keep``, ``bias_corrected`` or a `MomentPolicy`.

    Returns:
        The policy.

    Raises:
        ValueError: unknown name.
    """
    if isinstance(policy, MomentPolicy):
        return policy
    if policy not in ("zero", "keep", "bias_corrected"):
        raise ValueError(f"moments must be zero, keep or bias_corrected, got {policy!r}")
    return MomentPolicy(policy)


def confined(
    inner: optax.GradientTransformation,
    policy: MomentPolicy,
    state: PyTree,
    params: PyTree,
    masks: PyTree,
) -> PyTree:
    """Slots outside the topology as a fresh optimizer would have them; all others untouched.

    A weight that grows later then finds them fresh (more exactly, one update with a zero gradient
    from there). Applied before the inner update, where it fuses with it. Under ``keep`` moments go
    on decaying outside the topology, and only copies of the weights follow the mask.

    Args:
        inner: the optimizer.
        policy: moment policy.
        state: the optimizer's state.
        params: parameters, zero outside the topology.
        masks: mask tree.

    Returns:
        State of the same structure. A slot may have leading axes of its own (L-BFGS's history);
        factored slots, whose shape is another, are kept.
    """
    fresh = inner.init(params)
    everywhere = policy.name != "keep"
    # A slot whose initial value moves with the weights is a copy of them.
    moves = fresh if everywhere else jax.jvp(inner.init, (params,), (_ones(params),))[1]

    def one(slot: PyTree, new: PyTree, mask: PyTree, move: PyTree) -> PyTree:
        if is_sentinel(mask) or mask.shape != jnp.shape(slot)[-mask.ndim :]:
            return slot
        mask = jnp.broadcast_to(mask, jnp.shape(slot))
        return inside(mask if everywhere else mask | (move == 0), slot, new)

    return jax.tree.map(one, state, fresh, _at_slots(inner, state, masks), moves)


def renewed(state: PyTree, fresh: PyTree, changed: PyTree) -> PyTree:
    """Slots of weights that were given new values as a fresh optimizer has them.

    Args:
        state: the optimizer's state.
        fresh: the same of an optimizer that begins with the parameters as they are now.
        changed: tree of bool like the parameters, True where a value is new.

    Returns:
        State of the same structure. Slots are the subtrees that look like the parameters; one
        whose shape is another is kept.
    """
    like = jax.tree.structure(changed)

    def is_copy(node: PyTree) -> bool:
        return jax.tree.structure(node) == like

    def one(changed: jax.Array, new: jax.Array, slot: jax.Array) -> jax.Array:
        return jnp.where(changed, new, slot) if jnp.shape(slot) == changed.shape else slot

    def at(slot: PyTree, new: PyTree) -> PyTree:
        return jax.tree.map(one, changed, new, slot) if is_copy(slot) else slot

    return jax.tree.map(at, state, fresh, is_leaf=is_copy)


def reborn(ages: Ages, changed: Mapping[str, jax.Array]) -> Ages:
    """Ages where weights that were given new values are as young as newly grown ones.

    Args:
        ages: before.
        changed: path -> bool, True where a value is new.
    """
    leaves = {path: jnp.where(changed[path], 0, age) for path, age in ages.leaves.items()}
    return ages._replace(leaves=leaves)


def young(weights: Mapping[str, jax.Array]) -> Ages:
    """Ages at the start: every weight counts as old, its moments being as old as the optimizer.

    Args:
        weights: path -> leaf that may grow.

    Returns:
        The ages.
    """
    leaves = {path: jnp.full_like(leaf, _OLD, jnp.uint16) for path, leaf in weights.items()}
    return Ages(jnp.zeros((), jnp.int32), leaves)


def aged(ages: Ages, masks: PyTree) -> Ages:
    """Ages after one more update.

    Args:
        ages: before.
        masks: the topology of this update.

    Returns:
        Ages of active weights one higher, of inactive ones 0.
    """

    def one(age: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.where(mask, jnp.where(age == _OLD, age, age + 1), 0)

    named_masks = named_leaves(masks)
    leaves = {path: one(age, named_masks[path]) for path, age in ages.leaves.items()}
    return Ages(jnp.asarray(optax.safe_increment(ages.updates)), leaves)


def rescaled(policy: MomentPolicy, ages: Ages, updates: PyTree) -> PyTree:
    """Updates of young weights as if Adam had started when they grew; see `bias_corrected`.

    Args:
        policy: with the optimizer's decays.
        ages: of this update.
        updates: the inner optimizer's.

    Returns:
        Tree like ``updates``.
    """

    def left(decay: float, steps: jax.Array) -> jax.Array:
        return -jnp.expm1(steps.astype(jnp.float32) * jnp.log(decay))  # 1 - decay^steps

    late = left(policy.b1, ages.updates) / jnp.sqrt(left(policy.b2, ages.updates))

    def one(path: tuple, update: jax.Array) -> jax.Array:
        age = ages.leaves.get(path_of(path))
        if age is None:
            return update
        since = jnp.maximum(age, 1)
        early = jnp.sqrt(left(policy.b2, since)) / left(policy.b1, since)
        return update * jnp.where(age == _OLD, 1.0, late * early).astype(update.dtype)

    return jax.tree_util.tree_map_with_path(one, updates)


def _ones(params: PyTree) -> PyTree:
    return jax.tree.map(jnp.ones_like, params)


def _at_slots(inner: optax.GradientTransformation, state: PyTree, tree: PyTree) -> PyTree:
    """Tree like the optimizer's state with, at every slot, its weight's leaf of ``tree``."""
    nothing = optax.MaskedNode()

    def leaf_of(slot: PyTree, leaf: PyTree) -> PyTree:
        return slot if is_sentinel(slot) else leaf

    try:
        return optax.tree_map_params(
            inner,
            leaf_of,
            state,
            tree,
            transform_non_params=lambda _: nothing,
            is_leaf=is_sentinel,
        )
    # optax gives `init` a placeholder for the parameters; L-BFGS, SM3 and flatten look inside it,
    # each failing in its own way. Their slots are found as subtrees that look like the parameters.
    except Exception:
        like = jax.tree.structure(tree, is_leaf=is_sentinel)

        def is_copy(node: PyTree) -> bool:
            return jax.tree.structure(node, is_leaf=is_sentinel) == like

        def at(node: PyTree) -> PyTree:
            if not is_copy(node):
                return nothing
            return jax.tree.map(leaf_of, node, tree, is_leaf=is_sentinel)

        return jax.tree.map(at, state, is_leaf=is_copy)
