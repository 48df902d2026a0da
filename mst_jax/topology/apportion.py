"""Apportionment on device: integers that add up to a traced total, in proportion to weights.

Everything is integer arithmetic on vectors as long as a module has leaves, so that the sum is exact
for any total and nothing depends on how a product of floats is rounded.
"""

import jax
import jax.numpy as jnp


def apportion(total: jax.Array, weights: jax.Array, room: jax.Array) -> jax.Array:
    """Shares a total in proportion to weights, by largest remainder, within bounds.

    A part that would exceed its room gets its room, and the others share the rest.

    Args:
        total: int32 scalar, may be traced.
        weights: int32 ``[parts]``, not negative, with a sum below 2^31; positive wherever there is
            room, or the room of such a part stays empty.
        room: int32 ``[parts]``, the most that each part can take.

    Returns:
        int32 ``[parts]``, each in ``[0, room]``, with sum ``clip(total, 0, sum(room))``. Equal
        remainders favour the earlier part.
    """
    total = jnp.clip(total, 0, jnp.sum(room))

    def shares(full: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What is left for the parts that are not full, its whole shares, and their remainders."""
        rest = total - jnp.sum(jnp.where(full, room, 0))
        own = jnp.where(full, 0, weights)
        return rest, *_multiply_divide(rest, own, jnp.maximum(jnp.sum(own), 1))

    def fill(_: jax.Array, full: jax.Array) -> jax.Array:
        return full | (shares(full)[1] >= room)

    full = jax.lax.fori_loop(0, room.size, fill, room <= 0)
    rest, whole, remainder = shares(full)
    remainder = jnp.where(full, -1, remainder)
    part = jnp.arange(room.size)
    better = (remainder > remainder[:, None]) | (
        (remainder == remainder[:, None]) & (part < part[:, None])
    )
    one_more = (jnp.sum(better, axis=1) < rest - jnp.sum(whole)) & ~full
    return jnp.where(full, room, whole + one_more).astype(jnp.int32)


def as_weights(scores: jax.Array) -> jax.Array:
    """Integer weights in proportion to scores, the largest of which becomes about 2^30 / parts.

    Args:
        scores: float ``[parts]``, not negative.

    Returns:
        int32 ``[parts]``, each at least 1, so that parts whose scores are zero or NaN share what
        the others have no room for (everything, equally, if all of them are).
    """
    # Bounded, because the reciprocal of a number near the largest is flushed to zero.
    scores = jnp.minimum(jnp.where(jnp.isnan(scores), 0.0, scores), 1e30)
    share = jnp.minimum(scores / jnp.max(scores), 1.0)
    levels = 2 ** (30 - scores.size.bit_length())
    return 1 + jnp.where(jnp.isnan(share), 0.0, jnp.floor(share * levels)).astype(jnp.int32)


def _multiply_divide(a: jax.Array, b: jax.Array, divisor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quotient and remainder of ``a * b / divisor`` without the product: long division by bits.

    Args:
        a: int32 scalar, not negative.
        b: int32 ``[parts]``, each in ``[0, divisor]``.
        divisor: int32 scalar, positive.

    Returns:
        int32 ``[parts]`` and int32 ``[parts]``.
    """
    a, b, divisor = (x.astype(jnp.uint32) for x in (a, b, divisor))

    def reduced(quotient: jax.Array, rest: jax.Array) -> tuple[jax.Array, jax.Array]:
        over = rest >= divisor
        return quotient + over, jnp.where(over, rest - divisor, rest)

    def one_bit(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        quotient, rest = reduced(2 * carry[0], 2 * carry[1])
        bit = (a >> (30 - i).astype(jnp.uint32)) & 1
        return reduced(quotient, rest + bit * b)

    zero = jnp.zeros(b.shape, jnp.uint32)
    return tuple(x.astype(jnp.int32) for x in jax.lax.fori_loop(0, 31, one_bit, (zero, zero)))
