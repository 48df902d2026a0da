"""A sum tree of fan-out 16, for one seed: a parent is the sum of its children.

The tree is a tuple of flat float32 levels, leaves first; each level is padded with zeros to a
multiple of 16 and the last one has exactly 16 entries. Three choices make it exact:

* Parents are *recomputed* from their 16 children, never incremented, so rounding cannot accumulate
  and repeated indices are harmless.
* The 16 children are added one after another, by explicit additions. The order is part of the
  program, so results are bit-identical with and without `vmap`, and running sums never decrease: a
  child of weight zero leaves the running sum exactly as it was and can therefore never be chosen.
* Every level draws its own uniform number. One float32 uniform has 2**23 values, only eight for
  each of a million leaves; descending with the rest of a single draw would weight them unevenly.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

FANOUT = 16

Tree = tuple[jax.Array, ...]
Level = jax.Array | np.ndarray


def level_sizes(num_leaves: int) -> list[int]:
    """Returns the length of each level, leaves first, of a tree over `num_leaves` leaves."""
    sizes = [_padded(num_leaves)]
    while sizes[-1] > FANOUT:
        sizes.append(_padded(sizes[-1] // FANOUT))
    return sizes


def from_leaves(leaves: Level) -> tuple[Level, ...]:
    """Builds the tree over `leaves` (float32[n]), bit-equal to one built by `replace` calls.

    Of NumPy's arrays it is built by NumPy, with the same additions and so the same bits.
    """
    tree = [_pad(leaves, level_sizes(leaves.shape[0])[0])]
    while tree[-1].shape[0] > FANOUT:
        sums = _running_sums(_blocks(tree[-1]))[-1]
        tree.append(_pad(sums, _padded(sums.shape[0])))
    return tuple(tree)


def total(values: jax.Array) -> jax.Array:
    """Sums float32[n] by the tree's own additions: accurate for millions of terms, fixed order."""
    return jnp.asarray(_running_sums(from_leaves(values)[-1])[-1])


def replace(tree: Tree, indices: jax.Array, values: jax.Array, where: jax.Array) -> Tree:
    """Sets leaves `indices` to `values` where told, and recomputes all their ancestors.

    Args:
        tree: the tree.
        indices: int32[k], leaf numbers; in range where told. Of repeated ones the largest value
            wins, whatever the order in which a device executes its writes.
        values: float32[k], non-negative and finite where told.
        where: bool[k], which entries to set.

    Returns:
        The updated tree.
    """
    targets = jnp.where(where, indices, tree[0].shape[0])  # out of range: dropped
    leaves = tree[0].at[targets].set(0.0, mode="drop").at[targets].max(values, mode="drop")
    indices = jnp.where(where, indices, 0)  # those left alone need not be in range
    levels = [leaves]
    for parents in tree[1:]:
        indices = indices // FANOUT
        sums = _running_sums(_blocks(levels[-1])[indices])[-1]
        levels.append(parents.at[indices].set(sums))
    return tuple(levels)


def sample(tree: Tree, key: jax.Array, batch_size: int) -> jax.Array:
    """Draws leaves independently, with replacement, with probability proportional to their value.

    Args:
        tree: the tree.
        key: a typed key.
        batch_size: number of draws.

    Returns:
        int32[batch_size]. A leaf of value zero is never returned, unless all are zero: then the
        last leaf (padding included) is.
    """
    uniforms = jax.random.uniform(key, (len(tree), batch_size))
    indices = jnp.zeros(1, jnp.int32)
    for level, uniform in zip(reversed(tree), uniforms, strict=True):
        sums = _running_sums(_blocks(level)[indices])
        # uniform < 1, so the product is below the total even after rounding.
        target = uniform * sums[-1]
        child = sum((running <= target).astype(jnp.int32) for running in sums[:-1])
        indices = _computed_once(indices * FANOUT + child)
    return indices


def _computed_once(indices: jax.Array) -> jax.Array:
    """Returns the indices, by an operation that keeps XLA from computing them over and over.

    XLA's CPU fusion copies cheap operations into each of their consumers: every level would choose
    all its ancestors' children anew, and every reader of the result the whole descent. A remainder
    counts as expensive and is computed once; this one changes no index. (`optimization_barrier`
    does not help: it is gone before fusion.)
    """
    return jax.lax.rem(indices, jnp.int32(2**31 - 1))


def _running_sums(children: Level) -> list[Level]:
    """Returns the 16 running sums over the last axis of [..., 16], each of shape [...]."""
    sums = [children[..., 0]]
    for i in range(1, FANOUT):
        sums.append(sums[-1] + children[..., i])
    return sums


def _blocks(level: Level) -> Level:
    return level.reshape(-1, FANOUT)


def _pad(level: Level, size: int) -> Level:
    pad = np.pad if isinstance(level, np.ndarray) else jnp.pad
    return pad(level, (0, size - level.shape[0]))


def _padded(size: int) -> int:
    return math.ceil(size / FANOUT) * FANOUT
