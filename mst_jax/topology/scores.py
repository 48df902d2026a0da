"""Scores: what makes a weight worth keeping or a position worth growing.

A score is a function of one leaf's `Leaf` and returns an array of the leaf's shape; the
largest are chosen. Write your own as any such function.
"""

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
        square: exponential average of squared gradients (float32); None unless the regime asks.
        activity: mean absolute activation of the neurons of the last axis, ``[outputs]``; None
            unless ``update`` was given this leaf's.
    """

    weight: jax.Array
    gradient: jax.Array
    average: jax.Array | None
    mask: jax.Array
    key: jax.Array
    square: jax.Array | None = None
    activity: jax.Array | None = None


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


def adam_gradient(leaf: Leaf) -> jax.Array:
    """``|m| / (sqrt(v) + 1e-8)`` of averages as Adam's (SNFS's scores under Adam)."""
    return jnp.abs(leaf.average) / (jnp.sqrt(leaf.square) + 1e-8)


def dormancy(leaf: Leaf) -> jax.Array:
    """Activity of the neuron a weight leads to, over its layer's mean (Sokar et al. 2023).

    A leaf without activity (an output layer) scores infinity: its neurons are never dormant.
    """
    if leaf.activity is None:
        return jnp.full(leaf.mask.shape, jnp.inf)
    share = leaf.activity / (jnp.mean(leaf.activity) + 1e-9)
    return jnp.broadcast_to(share, leaf.mask.shape)
