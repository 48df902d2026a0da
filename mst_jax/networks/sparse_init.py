"""SparseInit (Elsayed et al., 2024): most inputs of every unit begin at zero, and are trained."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax.networks.architecture import Params

ROUNDING = 1e-4  # 0.9 * 10 is 9 inputs, whatever the last digit of the product is


def sparse_init(key: jax.Array, params: Params, share: float, active: Any = None) -> Params:
    """Fresh parameters: kernels uniform in ±1/sqrt(fan-in), a share of each unit's inputs zero.

    Source: docs/specs/streaming.md §1.2. The bound counts all inputs, silenced or not; of a
    convolution the inputs of an output channel are its whole window. Everything but kernels (what
    has two axes or more) is zero.

    Args:
        key: typed key.
        params: parameters of the shapes wanted; their values do not matter.
        share: of each unit's inputs, ⌈share · inputs⌉ of them, drawn uniformly, that are zero.
        active: a tree like `params` of bool arrays; only weights where it is True count as inputs
            and can be silenced. None: all.

    Returns:
        Parameters like `params`.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    masks = [None] * len(leaves) if active is None else structure.flatten_up_to(active)
    fresh = [_leaf(*each, share) for each in zip(keys, leaves, masks, strict=True)]
    return structure.unflatten(fresh)


def _leaf(key: jax.Array, leaf: jax.Array, active: jax.Array | None, share: float) -> jax.Array:
    if leaf.ndim < 2:
        return jnp.zeros_like(leaf)
    inputs = math.prod(leaf.shape[:-1])
    bound = 1.0 / math.sqrt(inputs)
    value_key, order_key = jax.random.split(key)
    matrix = jax.random.uniform(value_key, (inputs, leaf.shape[-1]), leaf.dtype, -bound, bound)
    seen = jnp.ones(matrix.shape, bool) if active is None else active.reshape(matrix.shape)
    order = jnp.where(seen, jax.random.uniform(order_key, matrix.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(order, axis=0), axis=0)
    silenced = jnp.ceil(share * jnp.sum(seen, axis=0) - ROUNDING)
    return jnp.where(rank < silenced, 0.0, matrix).reshape(leaf.shape)
