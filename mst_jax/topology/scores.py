"""Scores: what makes a weight worth keeping or a position worth growing.

A score is a function of one leaf's :class:`Leaf` and returns an array of the leaf's shape; the
largest are chosen. Write your own as any such function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Leaf(NamedTuple):
    """What a score may look at, for one parameter leaf.

    Attributes:
        weight: the parameter, zero outside the mask.
        gradient: the raw dense gradient handed to ``update``.
        average: exponential average of such gradients (float32); None unless the regime asks.
        mask: bool, the topology before the rewire.
        key: typed random key of this leaf and this step.
    """

    weight: jax.Array
    gradient: jax.Array
    average: jax.Array | None
    mask: jax.Array
    key: jax.Array


Score = Callable[[Leaf], jax.Array]


def magnitude(leaf: Leaf) -> jax.Array:
    """``|w|``: drop the smallest (SET, RigL, gradual pruning)."""
    return jnp.abs(leaf.weight)


def random(leaf: Leaf) -> jax.Array:
    """Uniformly random (SET's growth, Mocanu et al. 2018)."""
    return jax.random.bits(leaf.key, leaf.mask.shape, jnp.uint32)


def gradient(leaf: Leaf) -> jax.Array:
    """``|dL/dw|`` of the current batch (RigL's growth, Evci et al. 2020)."""
    return jnp.abs(leaf.gradient)


def average_gradient(leaf: Leaf) -> jax.Array:
    """Size of the averaged gradient (SNFS's momentum, Dettmers & Zettlemoyer 2019)."""
    return jnp.abs(leaf.average)
