"""Selection: exactly k of n entries by score, with k traced.

Scores become unsigned integers whose order is the wanted order:

    0: not eligible    1: NaN    2 and above: monotone image of the score's bits

so eligibility needs no epsilon, NaN is chosen last, denormals are ordered although float
comparisons on the CPU treat them as equal, and -0 equals +0.

The k-th largest key is found by counting, never by sorting: 16 passes over the keys fix two bits
each, the three counts of a pass being one variadic reduction. ``benchmarks/topology.py`` compares
it with histograms, sorts and ``top_k``: on the CPU nothing else came near, alone or under ``vmap``,
because XLA vectorises a reduction with several results and neither a scatter nor a comparator.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

_ROW = 1024  # entries per row when ties are resolved


def sort_keys(scores: jax.Array, eligible: jax.Array) -> jax.Array:
    """Unsigned keys in the order of the scores.

    Args:
        scores: float array of any width, or unsigned integers (whose lowest bit is ignored).
        eligible: bool array of the same shape; the others get key 0.

    Returns:
        uint32 array of the same shape (uint64 for 64-bit scores).

    Raises:
        TypeError: other scores.
    """
    if jnp.issubdtype(scores.dtype, jnp.unsignedinteger):
        image = (scores >> 1) + 2
        return jnp.where(eligible, image, 0)
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(f"scores must be floats or unsigned integers, got {scores.dtype}")
    if scores.dtype.itemsize < 2:  # the 8-bit formats differ in what they do with infinity
        scores = scores.astype(jnp.float32)
    bits = jnp.finfo(scores.dtype).bits
    raw = jax.lax.bitcast_convert_type(scores, jnp.dtype(f"uint{bits}"))
    raw = raw.astype(jnp.uint64 if bits == 64 else jnp.uint32)
    sign = raw.dtype.type(1 << (bits - 1))
    negative = (raw & sign) != 0
    magnitude = raw & (sign - 1)
    infinity = jax.lax.bitcast_convert_type(
        jnp.asarray(jnp.inf, scores.dtype), jnp.dtype(f"uint{bits}")
    ).astype(raw.dtype)
    # Shifted by 2 to leave room for "not eligible" and NaN; the magnitudes above infinity are NaN,
    # so nothing overflows.
    image = jnp.where(negative, sign - magnitude, sign + magnitude) + 2
    image = jnp.where(magnitude > infinity, 1, image)
    return jnp.where(eligible, image, 0).astype(raw.dtype)


@jax.jit
def top_k(scores: jax.Array, k: jax.Array, eligible: jax.Array) -> jax.Array:
    """Mask of the k eligible entries with the largest scores.

    Args:
        scores: float or unsigned array of any shape, fewer than 2^31 entries.
        k: int32 scalar, may be traced.
        eligible: bool array of the same shape.

    Returns:
        bool array of the same shape with ``min(k, eligible)`` True; ties by lowest index, NaN last.

    Raises:
        ValueError: scores of another shape than ``eligible``.
        TypeError: scores that are neither floats nor unsigned integers.
    """
    if scores.shape != eligible.shape:
        raise ValueError(
            f"scores have shape {scores.shape} and the entries to choose from {eligible.shape}: a "
            f"score returns one number for every entry"
        )
    if scores.size == 0:
        return eligible
    return unsharded(_top_k, scores, k, eligible)


def unsharded(
    function: Callable[..., jax.Array], scores: jax.Array, k: jax.Array, eligible: jax.Array
) -> jax.Array:
    """``function(scores, k, eligible)`` where explicit mesh axes are left to the compiler.

    Which entries are the largest depends on all devices, and no explicit sharding rule says so;
    the compiler finds out by itself. The result is laid out as ``eligible``.
    """
    layout = jax.typeof(eligible).sharding
    if not any(axis for x in (scores, eligible) for axis in jax.typeof(x).sharding.spec):
        return function(scores, k, eligible)
    return jax.sharding.auto_axes(function, out_sharding=layout)(scores, k, eligible)


def _top_k(scores: jax.Array, k: jax.Array, eligible: jax.Array) -> jax.Array:
    return top_keys(sort_keys(scores, eligible), k)


def top_keys(keys: jax.Array, k: jax.Array) -> jax.Array:
    """`top_k` of keys as `sort_keys` makes them."""
    shape, size, width = keys.shape, keys.size, min(keys.size, _ROW)
    keys = keys.reshape(-1)
    keys = jnp.pad(keys, (0, -size % width))
    threshold = kth_largest([keys], k)
    rows = keys.reshape(-1, width)
    above, tied = counts_of([rows > threshold, rows == threshold], axis=1)
    cut = _position(tied, k - jnp.sum(above), lambda row: rows[row] == threshold)
    index = jnp.arange(keys.size, dtype=jnp.int32)
    wanted = (keys > threshold) | ((keys == threshold) & (index <= cut))
    return (wanted & (keys > 0))[:size].reshape(shape)


def top_k_counts(
    scores: Sequence[jax.Array], k: jax.Array, eligible: Sequence[jax.Array]
) -> jax.Array:
    """How many of the k best entries of several arrays together each array has.

    ``top_k`` of each array with its own count then chooses exactly those k.

    Args:
        scores: float arrays of any shapes, or unsigned ones, fewer than 2^31 entries in all.
        k: int32 scalar, may be traced.
        eligible: bool arrays of the same shapes.

    Returns:
        int32 ``[arrays]`` that add up to ``min(k, eligible)``; ties go to the earlier array, NaN
        comes last.
    """
    kind = jnp.result_type(*scores)
    keys = [sort_keys(s.astype(kind), e).reshape(-1) for s, e in zip(scores, eligible, strict=True)]
    threshold = kth_largest(keys, k)
    each = [counts_of([key > threshold, (key == threshold) & (key > 0)], axis=0) for key in keys]
    above, tied = (jnp.stack(counts) for counts in zip(*each, strict=True))
    earlier = jnp.cumsum(tied) - tied
    return above + jnp.clip(k - jnp.sum(above) - earlier, 0, tied)


def kth_largest(keys: Sequence[jax.Array], k: jax.Array) -> jax.Array:
    """Largest ``t`` that at least k keys reach: two bits a pass, from the highest."""
    kind = keys[0].dtype
    passes = kind.itemsize * 4

    def two_bits(i: jax.Array, found: jax.Array) -> jax.Array:
        shift = (2 * (passes - 1 - i)).astype(kind)
        trials = [found | (jnp.asarray(digit, kind) << shift) for digit in (1, 2, 3)]
        each = [counts_of([key >= trial for trial in trials], axis=0) for key in keys]
        digit = sum((sum(counts) >= k).astype(kind) for counts in zip(*each, strict=True))
        return found | (digit << shift)

    return jax.lax.fori_loop(0, passes, two_bits, jnp.zeros((), kind))


def counts_of(flags: list[jax.Array], axis: int) -> list[jax.Array]:
    """Number of True entries of several arrays along an axis, int32, in one pass over memory."""
    return jax.lax.reduce(
        [flag.astype(jnp.int32) for flag in flags],
        [jnp.zeros((), jnp.int32)] * len(flags),
        lambda a, b: [x + y for x, y in zip(a, b, strict=True)],
        (axis,),
    )


def _position(
    counts: jax.Array, quota: jax.Array, flags: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Flat position of the ``quota``-th flag, or the last flag, or -1 if the quota is not positive.

    Args:
        counts: int32 ``[rows]``, flags in each row.
        quota: int32 scalar.
        flags: row number -> bool ``[width]``.

    Returns:
        int32 scalar.
    """
    until = jnp.cumsum(counts)
    row = jnp.minimum(jnp.sum(until < quota, dtype=jnp.int32), counts.size - 1)
    flagged = flags(row)
    wanted = quota - (until[row] - counts[row])
    column = jnp.sum(jnp.cumsum(flagged, dtype=jnp.int32) < wanted, dtype=jnp.int32)
    return jnp.where(quota > 0, row * flagged.size + column, -1)
