"""Selection: exactly k of n entries by score, with k traced.

Scores become unsigned integers whose order is the wanted order::

    0: not eligible    1: NaN    2 and above: monotone image of the score's bits

so eligibility needs no epsilon, NaN is chosen last, denormals are ordered although float
comparisons on the CPU treat them as equal, and -0 equals +0. The k-th largest key is then found by
counting (never by sorting), and ties at that key go to the lowest index. Methods and measurements:
``specs/sparse-training-notes.md`` §5.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_CHUNK = 1024  # entries per chunk when ties are resolved


def sort_keys(scores: jax.Array, eligible: jax.Array) -> jax.Array:
    """Unsigned keys in the order of the scores.

    Args:
        scores: float array of any width, or unsigned integers (whose lowest bit is ignored).
        eligible: bool array of the same shape; the others get key 0.

    Returns:
        uint32 array of the same shape (uint64 for 64-bit scores).
    """
    if jnp.issubdtype(scores.dtype, jnp.unsignedinteger):
        image = (scores >> 1) + 2
        return jnp.where(eligible, image, 0)
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


def top_k(
    scores: jax.Array, k: jax.Array, eligible: jax.Array, method: str | None = None
) -> jax.Array:
    """Mask of the k eligible entries with the largest scores.

    Args:
        scores: float or unsigned array of any shape.
        k: int32 scalar, may be traced; at most all eligible entries are chosen.
        eligible: bool array of the same shape.
        method: ``bisect`` or ``histogram``; by default the fastest for the backend.

    Returns:
        bool array of the same shape with ``min(k, eligible)`` True; ties by lowest index, NaN last.
    """
    keys = sort_keys(scores, eligible).reshape(-1)
    k = jnp.minimum(jnp.asarray(k, jnp.int32), jnp.sum(keys > 0, dtype=jnp.int32))
    if method is None:
        wide = keys.dtype.itemsize > 4
        method = "histogram" if jax.default_backend() == "cpu" and not wide else "bisect"
    find = {"bisect": _threshold_bisect, "histogram": _threshold_histogram}[method]
    return _at_least(keys, k, find(keys, k)).reshape(scores.shape)


def _threshold_bisect(keys: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th largest key (0 if k is 0 or all keys are equal to it), two bits a pass."""
    kind = keys.dtype.type

    def two_bits(i: jax.Array, low: jax.Array) -> jax.Array:
        shift = (keys.dtype.itemsize * 8 - 2 - 2 * i).astype(keys.dtype)
        steps = [low | (kind(digit) << shift) for digit in (1, 2, 3)]
        reached = sum((jnp.sum(keys >= t, dtype=jnp.int32) >= k).astype(keys.dtype) for t in steps)
        return low | (reached << shift)

    return jax.lax.fori_loop(0, keys.dtype.itemsize * 4, two_bits, jnp.zeros((), keys.dtype))


def _threshold_histogram(keys: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th largest key from two histograms of 65,536 bins: of the high, then the low half."""
    high, low = keys >> 16, keys & 0xFFFF
    top, above = _digit(high, jnp.ones_like(keys, jnp.int32), k)
    bottom, _ = _digit(low, (high == top).astype(jnp.int32), k - above)
    return (top << 16) | bottom


def _digit(digits: jax.Array, weights: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Largest digit that at least k weighted entries reach, and how many lie above it."""
    histogram = jnp.zeros((1 << 16,), jnp.int32).at[digits].add(weights, mode="promise_in_bounds")
    reached = jnp.cumsum(histogram[::-1])[::-1]
    digit = jnp.maximum(jnp.sum(reached >= k, dtype=jnp.int32) - 1, 0)
    return digit.astype(digits.dtype), reached[digit] - histogram[digit]


def _at_least(keys: jax.Array, k: jax.Array, threshold: jax.Array) -> jax.Array:
    """Keys above the threshold, and of those equal to it the first few that make up k."""
    above = keys > threshold
    tied = keys == threshold
    quota = k - jnp.sum(above, dtype=jnp.int32)
    return above | _first(tied, quota)


def _first(flags: jax.Array, quota: jax.Array) -> jax.Array:
    """The first ``quota`` True entries: counts per chunk, then a cumulative sum of one chunk."""
    n = flags.shape[0]
    chunks = math.ceil(n / _CHUNK)
    padded = jnp.pad(flags, (0, chunks * _CHUNK - n)).reshape(chunks, _CHUNK)
    until = jnp.cumsum(jnp.sum(padded, axis=1, dtype=jnp.int32))
    last = jnp.minimum(jnp.sum(until < quota, dtype=jnp.int32), chunks - 1)
    row = padded[last]
    before = until[last] - jnp.sum(row, dtype=jnp.int32)
    place = jnp.sum(jnp.cumsum(row, dtype=jnp.int32) <= quota - before - 1, dtype=jnp.int32)
    cut = jnp.where(quota > 0, last * _CHUNK + place, -1)
    return flags & (jnp.arange(n, dtype=jnp.int32) <= cut)
