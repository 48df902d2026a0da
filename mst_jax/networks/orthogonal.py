"""Orthogonal kernels, of many seeds in one program."""

import jax
import jax.numpy as jnp
from flax import linen as nn


def orthogonal(
    key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32, scale: float = 1.0
) -> jax.Array:
    """Flax's orthogonal initialiser, drawn for one seed after another under `vmap`.

    A batch of QR decompositions is shared among the threads of a CPU by a thread of the same pool,
    which waits for them. As many batches at once as there are threads wait for ever (jaxlib 0.10.2,
    two cores, a program that draws two seeds of eleven kernels). A single one is not shared.

    Args:
        key: typed key.
        shape: of the kernel, outputs last.
        dtype: of the kernel.
        scale: length of its columns.

    Returns:
        The kernel.
    """
    make = nn.initializers.orthogonal(scale)
    one = jax.custom_batching.sequential_vmap(lambda own: make(own, shape, dtype))
    return one(key)
