"""Random shifts of pictures (docs/specs/drqv2.md §1.3)."""

import jax
import jax.numpy as jnp


def random_shift(key: jax.Array, pictures: jax.Array, pad: int) -> jax.Array:
    """Each picture moved by up to `pad` pixels in both directions, all its channels alike.

    Args:
        key: typed key.
        pictures: (B, H, W, C), of any dtype.
        pad: most pixels; 0 leaves the pictures as they are.

    Returns:
        Pictures of the same shape and dtype.
    """
    return shifted(pictures, jax.random.randint(key, (len(pictures), 2), 0, 2 * pad + 1), pad)


def shifted(pictures: jax.Array, shifts: jax.Array, pad: int) -> jax.Array:
    """Pictures cut out of themselves, padded by `pad` pixels that repeat their borders.

    Published as bilinear sampling at places that are pixel centres: in exact arithmetic that is
    this choice of pixels, which needs no padded picture and no floating point.

    Args:
        pictures: (B, H, W, C).
        shifts: int (B, 2), the column and the row of the padded picture that the cut begins with,
            each in 0 to 2 `pad`; `pad` leaves a picture as it is.
        pad: pixels on each side.

    Returns:
        Pictures of the same shape and dtype.
    """

    def of_one(picture: jax.Array, shift: jax.Array) -> jax.Array:
        columns, rows = (
            jnp.clip(jnp.arange(side) + first - pad, 0, side - 1)
            for side, first in zip((picture.shape[1], picture.shape[0]), shift, strict=True)
        )
        return picture[rows][:, columns]

    return jax.vmap(of_one)(pictures, shifts)
