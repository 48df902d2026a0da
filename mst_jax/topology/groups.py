"""Selection in groups of equal size: as many units in each, in the order of `selection.top_k`.

Arrays are what `Structure.split` makes: ``[members, places, units, columns]``, units of one member,
place and column being a group.
"""

import jax
import jax.numpy as jnp

from mst_jax.topology.selection import counts_of, kth_largest, sort_keys, top_keys

_FEW = 16  # units that are ranked by comparing each with each, where counting takes 16 passes
_STRIP = 8  # units that are transposed together


def best_of_groups(scores: jax.Array, total: jax.Array, eligible: jax.Array) -> jax.Array:
    """The ``total`` best units, as many in every group as whole numbers allow.

    Of g groups each gets ``total // g``; one more goes to the ``total % g`` groups whose next unit
    has the largest score.

    Args:
        scores: float or unsigned, 4 axes.
        total: int32 scalar.
        eligible: bool like ``scores``, with as many True in every group.

    Returns:
        bool like ``scores``.
    """
    keys = sort_keys(scores, eligible)
    if keys.shape[2] <= _FEW:
        return _few(keys, total)
    return _from_rows(_many(_as_rows(keys), total), keys.shape)


def fill_groups(scores: jax.Array, share: jax.Array, kept: jax.Array) -> jax.Array:
    """``kept`` with the best of the rest, until every group has ``share`` units.

    Args:
        scores: float or unsigned, 4 axes.
        share: int32 scalar.
        kept: bool like ``scores``.

    Returns:
        bool like ``scores``.
    """
    missing = (share - jnp.sum(kept, axis=2, dtype=jnp.int32))[:, :, None]
    keys = sort_keys(scores, ~kept)
    if keys.shape[2] <= _FEW:
        return kept | ((_ranks(keys) < missing) & (keys > 0))
    rows = _as_rows(keys)
    more, _ = _best_of_rows(rows, missing.transpose(0, 3, 1, 2).reshape(-1))
    return kept | _from_rows(more, keys.shape)


def _few(keys: jax.Array, total: jax.Array) -> jax.Array:
    """`best_of_groups` by ranks."""
    members, places, _, columns = keys.shape
    each, more = jnp.divmod(total, members * places * columns)
    rank = jnp.where(keys > 0, _ranks(keys), keys.shape[2])
    rivals = jnp.max(jnp.where(rank == each, keys, 0), axis=2)
    chosen = jnp.swapaxes(top_keys(jnp.swapaxes(rivals, 1, 2), more), 1, 2)
    return (rank < each) | ((rank == each) & chosen[:, :, None])


def _many(rows: jax.Array, total: jax.Array) -> jax.Array:
    """`best_of_groups` of groups as rows, by counting."""
    each, more = jnp.divmod(total, len(rows))
    chosen, last = _best_of_rows(rows, jnp.broadcast_to(each + 1, len(rows)))
    rivals = jnp.max(jnp.where(last, rows, 0), axis=1)
    return chosen & (~last | top_keys(rivals, more)[:, None])


def _as_rows(keys: jax.Array) -> jax.Array:
    """Groups as rows ``[groups, units or a few more]``, so that each is read in one piece.

    In strips: a whole transposition would load a line of the cache for every key. What is added to
    fill the last strip is key 0, not eligible.
    """
    members, places, units, columns = keys.shape
    keys = jnp.pad(keys, ((0, 0), (0, 0), (0, -units % _STRIP), (0, 0)))
    strips = jax.lax.map(jnp.transpose, keys.reshape(-1, _STRIP, columns))
    strips = strips.reshape(members, places, -1, columns, _STRIP)
    return strips.transpose(0, 3, 1, 2, 4).reshape(members * columns * places, -1)


def _from_rows(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    members, places, units, columns = shape
    rows = mask[:, :units].reshape(members, columns, places, units)
    return rows.transpose(0, 2, 3, 1)


def _ranks(keys: jax.Array) -> jax.Array:
    """How many units of its group come before a unit, int8.

    In a loop, whose result is stored: else XLA ranks anew for whatever reads it.
    """
    place = jnp.arange(keys.shape[2])[:, None]

    def compare(i: jax.Array, rank: jax.Array) -> jax.Array:
        other = jax.lax.dynamic_slice_in_dim(keys, i, 1, axis=2)
        first = (other > keys) | ((other == keys) & (i < place))
        return rank + first.astype(jnp.int8)

    return jax.lax.fori_loop(0, keys.shape[2], compare, jnp.zeros(keys.shape, jnp.int8))


def _best_of_rows(keys: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The k best units of every row, and the last of them.

    Args:
        keys: as of `sort_keys`, ``[rows, units]``.
        k: int32 ``[rows]``.

    Returns:
        bool like ``keys`` twice; no last unit in a row that has fewer than k.
    """
    place = jnp.arange(keys.shape[1], dtype=jnp.int32)
    threshold = jax.vmap(lambda row, own: kth_largest([row], own))(keys, k)[:, None]
    tied = (keys == threshold) & (threshold > 0)
    above, equal = counts_of([keys > threshold, tied], axis=1)
    end = _end_of_first(tied, equal, k - above)[:, None]
    chosen = (keys > threshold) | (tied & (place < end))
    last = jnp.max(jnp.where(tied & (place < end), place, -1), axis=1, keepdims=True)
    return chosen, place == last


def _end_of_first(flags: jax.Array, counts: jax.Array, quota: jax.Array) -> jax.Array:
    """Where the first ``quota`` flags of every row end.

    Few rows have more flags than that; only they are searched, one after the other.

    Args:
        flags: bool ``[rows, units]``.
        counts: int32 ``[rows]``, flags in each row.
        quota: int32 ``[rows]``.

    Returns:
        int32 ``[rows]``, as many places as may be taken.
    """
    ends = jnp.full(len(flags), flags.shape[1], jnp.int32)

    def one_row(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, ends = state
        row = jnp.argmax(left)
        first = jnp.cumsum(flags[row], dtype=jnp.int32) <= quota[row]
        return left.at[row].set(False), ends.at[row].set(jnp.sum(first, dtype=jnp.int32))

    ambiguous = counts > jnp.maximum(quota, 0)
    return jax.lax.while_loop(lambda state: jnp.any(state[0]), one_row, (ambiguous, ends))[1]
