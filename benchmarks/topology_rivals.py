"""What `benchmarks.topology` measures this package against."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def argsort_rewire(weight: jax.Array, gradient: jax.Array, mask: jax.Array, k: int) -> jax.Array:
    """The published method, straightforwardly: sort to keep k, sort again to grow the rest."""

    def best(scores: jax.Array, count: jax.Array) -> jax.Array:
        order = jnp.argsort(-scores.reshape(-1), stable=True)
        chosen = jnp.arange(order.size) < count
        return jnp.zeros(order.size, bool).at[order].set(chosen).reshape(scores.shape)

    kept = best(jnp.where(mask, jnp.abs(weight), -jnp.inf), k)
    grown = best(jnp.where(kept, -jnp.inf, jnp.abs(gradient)), jnp.sum(mask) - k)
    return kept | grown


def touch_once(weight: jax.Array, gradient: jax.Array, mask: jax.Array) -> jax.Array:
    """Reads what a rewire must read and writes what it must write, once."""
    return mask ^ (jnp.abs(weight) > jnp.abs(gradient))


def histogram_threshold(keys: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th largest key from two histograms of 65,536 bins."""

    def digit(digits: jax.Array, weights: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        counts = jnp.zeros(1 << 16, jnp.int32).at[digits].add(weights)
        reached = jnp.cumsum(counts[::-1])[::-1]
        found = jnp.maximum(jnp.sum(reached >= k) - 1, 0)
        return found.astype(jnp.uint32), reached[found] - counts[found]

    high, above = digit(keys >> 16, jnp.ones(keys.shape, jnp.int32), k)
    low, _ = digit(keys & 0xFFFF, (keys >> 16 == high).astype(jnp.int32), k - above)
    return (high << 16) | low


def counting_threshold(bits: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The k-th largest key by counting, so many bits a pass in one variadic reduction."""

    def find(keys: jax.Array, k: jax.Array) -> jax.Array:
        passes = -(-32 // bits)

        def step(i: jax.Array, found: jax.Array) -> jax.Array:
            shift = jnp.maximum(32 - bits * (i + 1), 0).astype(jnp.uint32)
            trials = [found | (jnp.uint32(d) << shift) for d in range(1, 1 << bits)]
            counts = jax.lax.reduce(
                [(keys >= trial).astype(jnp.int32) for trial in trials],
                [jnp.int32(0)] * len(trials),
                lambda a, b: [x + y for x, y in zip(a, b, strict=True)],
                (0,),
            )
            return found | (sum((c >= k).astype(jnp.uint32) for c in counts) << shift)

        return jax.lax.fori_loop(0, passes, step, jnp.uint32(0))

    return find
