"""Masks: pytrees of booleans shaped like the parameters, with a sentinel for dense leaves.

A mask tree has the structure of the parameter tree. Where a parameter is sparse it holds a boolean
array of the parameter's shape (True: the weight is active); where it is dense it holds
`DenseLeaf`, an empty pytree node, and where it is in compact storage a `SharedMask`. Always map
over the parameters first, over their `values_of` if some may be in compact storage:

    jax.tree.map(lambda p, m: ..., params, masks)

so that the sentinel reaches the function as an object instead of vanishing. ``None`` is never used:
it already means "absent" in parameter trees.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mst_jax.topology.compact import (
    Shared,
    SharedMask,
    densified,
    is_shared,
    is_shared_mask,
    survivors,
    values_of,
    with_values,
)

PyTree = Any


class DenseLeaf(NamedTuple):
    """Stands in a mask tree for a parameter that is not masked. It has no arrays."""


def is_sentinel(node: PyTree) -> bool:
    """True for the nodes of a mask tree that stand for "nothing to mask here"."""
    return isinstance(node, DenseLeaf | optax.MaskedNode | SharedMask)


def path_of(key_path: tuple[Any, ...]) -> str:
    """Key path of ``jax.tree_util`` as text: ``critic/q1/kernel``."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def named_leaves(tree: PyTree, is_leaf: Callable[[PyTree], bool] | None = None) -> dict[str, Any]:
    """Leaves of a tree by path, in flattening order.

    Args:
        tree: any pytree.
        is_leaf: as in ``jax.tree.flatten``.

    Returns:
        ``{path: leaf}``.

    Raises:
        ValueError: two leaves have the same path, as in ``{"a/b": x, "a": {"b": y}}``.
    """
    named: dict[str, Any] = {}
    for key_path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]:
        path = path_of(key_path)
        if path in named:
            raise ValueError(f"two leaves of this tree are called {path!r}: rename one of them")
        named[path] = leaf
    return named


def natural(path: str) -> list[int | str]:
    """Sort key in which ``layer_2`` comes before ``layer_10``."""
    parts = re.split(r"(\d+)", path)  # text and digits alternate
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def as_matrix(mask: np.ndarray) -> np.ndarray:
    """A mask as (inputs, outputs): kernel and ensemble axes join the inputs; a vector is a row."""
    return mask.reshape(-1, mask.shape[-1])


def require_same_leaves(what: str, tree: PyTree, params: PyTree) -> None:
    """Raises ``ValueError``, naming the first odd leaf, unless a tree has the parameters' shapes.

    Args:
        what: the tree's name in the message.
        tree: the tree.
        params: parameter tree.
    """
    given, wanted = (
        {path: np.shape(leaf) for path, leaf in named_leaves(t, is_leaf=is_sentinel).items()}
        for t in (tree, params)
    )
    if given == wanted:
        return
    path = next(path for path in [*wanted, *given] if given.get(path) != wanted.get(path))
    raise ValueError(
        f"the {what} are not those of these parameters: {path!r} has shape "
        f"{given.get(path, 'none')} there and {wanted.get(path, 'none')} in the parameters"
    )


def inside(mask: PyTree, value: jax.Array, other: jax.Array | None = None) -> jax.Array:
    """``value`` where the mask is True, else ``other`` or zero; ``value`` if the leaf is dense.

    Not a product, because ``0 * nan`` is ``nan``. And on bits: XLA's CPU backend fuses and
    vectorises these, while a ``where`` in the midst of Adam's arithmetic costs a third of the step.

    Args:
        mask: bool array, or a sentinel.
        value: array of the mask's shape.
        other: array of the same shape and dtype; zero by default.

    Returns:
        Array of that shape and dtype.
    """
    if is_sentinel(mask):
        return value
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.where(mask, value, jnp.zeros_like(value) if other is None else other)
    return _chosen(mask, value, other)


@jax.custom_jvp
def _chosen(mask: jax.Array, value: jax.Array, other: jax.Array | None) -> jax.Array:
    kind = jnp.dtype(f"int{8 * value.dtype.itemsize}")
    ones = -mask.astype(kind)
    bits = jax.lax.bitcast_convert_type(value, kind) & ones
    if other is not None:
        bits |= jax.lax.bitcast_convert_type(other, kind) & ~ones
    return jax.lax.bitcast_convert_type(bits, value.dtype)


@_chosen.defjvp
def _chosen_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Bits have no derivative, but who masks inside a loss expects that of a `where`."""
    mask, value, other = primals
    _, slope, other_slope = tangents
    return _chosen(mask, value, other), jnp.where(mask, slope, 0 if other is None else other_slope)


def apply(masks: PyTree, params: PyTree) -> PyTree:
    """Parameters, exactly zero outside their mask.

    Args:
        masks: mask tree.
        params: parameter tree (any leading axes, if the masks have them too).

    Returns:
        Tree like ``params``.

    Raises:
        ValueError: the masks are not those of these parameters.
    """
    values = values_of(params)
    return with_values(params, jax.tree.map(_inside, values, expand(masks, values)))


def _inside(value: jax.Array, mask: PyTree) -> jax.Array:
    return inside(mask, value)


def apply_updates(params: PyTree, updates: PyTree, masks: PyTree) -> PyTree:
    """Parameters after an update, exactly zero outside their masks whatever happened before.

    ``optax.apply_updates`` adds, and `mst_jax.topology.sparse` returns ``-p`` outside the
    mask: zero for every finite ``p``, but a weight that is NaN or infinite when it is dropped would
    stay so. This selects. Dense leaves are updated as by optax.

    Args:
        params: parameter tree (any leading axes, if the masks have them too).
        updates: tree like ``params``, from ``tx.update``.
        masks: mask tree after that update, ``topology.masks(opt_state)``.

    Returns:
        Tree like ``params``; kernels in compact storage have the inputs that the masks say.

    Raises:
        ValueError: updates or masks are not those of these parameters.
    """
    require_same_leaves("updates", updates, values_of(params))

    # On bits: a select would be folded into that of the update, and the sum then be rounded in
    # another way (as a fused multiply-add).
    full = expand(masks, params)
    before = values_of(follow(params, full))
    moved = jax.tree.map(_inside, optax.apply_updates(before, updates), full)
    return jax.tree.map(_with_inputs, params, full, moved, is_leaf=is_shared)


def follow(params: PyTree, masks: PyTree) -> PyTree:
    """Kernels in compact storage with the inputs that a mask tree says; new weights are zero.

    Args:
        params: parameter tree.
        masks: a mask, `DenseLeaf` or `SharedMask` for each parameter.

    Returns:
        The parameters; those in masked storage are as they were.
    """

    def one(param: PyTree, mask: PyTree) -> PyTree:
        if not is_shared(param):
            return param
        return _with_inputs(param, mask, inside(survivors(param, mask), param.values))

    return jax.tree.map(one, params, masks, is_leaf=is_shared)


def _with_inputs(param: PyTree, mask: PyTree, values: jax.Array) -> PyTree:
    return Shared(values, mask.index, param.inputs) if is_shared(param) else values


def expand(masks: PyTree, params: PyTree) -> PyTree:
    """A mask tree with exactly the structure of the parameters.

    ``optax.masked`` and ``optax.partition`` may hide whole subtrees behind one sentinel.

    Args:
        masks: mask tree.
        params: parameter tree.

    Returns:
        Mask tree with a mask or `DenseLeaf` at every parameter.

    Raises:
        ValueError: a mask belongs to no parameter, or to one of another shape.
    """
    named = named_leaves(masks, is_leaf=is_shared_mask)

    def pick(path: tuple[Any, ...], param: PyTree) -> PyTree:
        name = path_of(path)
        mask = named.pop(name, DenseLeaf())
        if is_shared(param) and not is_shared_mask(mask):
            raise ValueError(
                f"{name!r} is in compact storage and its mask is not: give the masks of its "
                f"optimizer's state, topology.masks(opt_state)"
            )
        shape = np.shape(param.values if is_shared(param) else param)
        if not _hides(mask) and mask.shape != shape:
            raise ValueError(
                f"{name!r} has shape {shape} and its mask {mask.shape}: not the same "
                f"network, or not the same seeds"
            )
        return mask

    full = jax.tree_util.tree_map_with_path(pick, params, is_leaf=is_shared)
    if named:
        raise ValueError(f"no parameter for the masks of {sorted(named)}: not the same network")
    return full


def merge(masks: PyTree, others: PyTree) -> PyTree:
    """One mask tree from two, each of which may hide subtrees behind a sentinel.

    Args:
        masks: mask tree.
        others: mask tree of the same parameters.

    Returns:
        Mask tree.

    Raises:
        ValueError: both mask the same leaf.
    """
    if _hides(masks):
        return others
    if _hides(others):
        return masks
    children, structure = jax.tree.flatten(masks, is_leaf=lambda node: node is not masks)
    if jax.tree_util.treedef_is_leaf(structure):
        raise ValueError("two sparse() wrappers mask the same parameter: remove one")
    return structure.unflatten(map(merge, children, structure.flatten_up_to(others)))


def _hides(node: PyTree) -> bool:
    return is_sentinel(node) and not is_shared_mask(node)


def count(masks: PyTree) -> jax.Array:
    """Number of active weights over all masked leaves.

    Args:
        masks: mask tree.

    Returns:
        int32 scalar; dense leaves are not counted.
    """
    leaves = jax.tree.leaves(densified(masks))
    return sum((jnp.sum(m, dtype=jnp.int32) for m in leaves), start=jnp.zeros((), jnp.int32))


def density(masks: PyTree) -> jax.Array:
    """Share of active weights over all masked leaves.

    Args:
        masks: mask tree.

    Returns:
        float32 scalar; 1 if no leaf is masked.
    """
    masks = densified(masks)
    size = sum(math.prod(m.shape) for m in jax.tree.leaves(masks))
    return count(masks).astype(jnp.float32) / size if size else jnp.ones((), jnp.float32)


def overlap(masks: PyTree, others: PyTree) -> jax.Array:
    """Share of the active weights of two topologies that both have (Jaccard index).

    Args:
        masks: mask tree.
        others: mask tree of the same structure.

    Returns:
        float32 scalar in [0, 1]; 1 if nothing is masked.

    Raises:
        ValueError: the trees have other leaves or shapes.
    """
    masks, others = densified(masks), densified(others)
    require_same_leaves("other masks", others, masks)
    both = count(jax.tree.map(jnp.logical_and, masks, others))
    either = count(jax.tree.map(jnp.logical_or, masks, others))
    return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0).astype(jnp.float32)
