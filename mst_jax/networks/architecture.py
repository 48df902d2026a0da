"""What a module's hidden layers look like: the three architectural switches of MST, and SimBa.

Activation, normalisation and residual form are settings (docs/specs/mst-and-mrq.md §2). Layer norm
has no learnable scale or offset, so all variants of one width have the same number of parameters;
SimBa's blocks (`residual="simba"`) are a network of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks.operations import Elu, LayerNorm, LeakyRelu, Operation, Relu

Params = dict[str, Any]
Residual = Literal["none", "pre", "post", "branch", "simba"]
LEAK = 0.01  # slope of `leaky_relu` below zero
EPSILON = 1e-5  # of layer norm


def leaky_relu(x: jax.Array) -> jax.Array:
    """`x` where it is positive, else 0.01 `x`; the shape stays.

    Its slope at zero is 0.01 as in the program of Stream AC, where jax's own has 1. SparseInit
    gives a unit of fewer than ten inputs nothing to see, and a run's first features are zero: then
    all units of a layer are at zero, and its first gradient would be a hundred times as large.
    """
    return jnp.where(x > 0, x, LEAK * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu,
    "leaky_relu": leaky_relu,
    "relu": nn.relu,
}
ACTIVATION_OPERATIONS: dict[str, Operation] = {
    "elu": Elu(),
    "leaky_relu": LeakyRelu(LEAK),
    "relu": Relu(),
}
RESIDUALS: tuple[Residual, ...] = ("none", "pre", "post", "branch", "simba")


@dataclass(frozen=True)
class Architecture:
    """What one module's hidden layers look like.

    Attributes:
        hidden: width of the hidden layers.
        depth: number of hidden layers; with `simba`, of blocks.
        activation: a key of `ACTIVATIONS`.
        norm: whether layer norm precedes each activation; with `simba`, each block and the end.
        residual: `none`, `pre` (the shortcut carries values before norm and activation), `post`
            (the sum is formed before norm and activation, so the shortcut passes through them),
            `branch` (the shortcut carries activated values around layer, norm and activation;
            §2.3) or `simba` (residual blocks, docs/specs/network-sparsity.md §2.1).
    """

    hidden: int
    depth: int
    activation: str
    norm: bool = True
    residual: Residual = "none"

    def nonlinearity(self, x: jax.Array) -> jax.Array:
        """Applies the activation function; the shape stays."""
        return ACTIVATIONS[self.activation](x)

    def activate(self, x: jax.Array) -> jax.Array:
        """Normalises (when set) and activates `x` of shape (..., features)."""
        return self.nonlinearity(layer_norm(x) if self.norm else x)

    def activate_operations(self) -> list[Operation]:
        """`activate` as operations."""
        own = ACTIVATION_OPERATIONS[self.activation]
        return [LayerNorm(EPSILON), own] if self.norm else [own]


def layer_norm(x: jax.Array, epsilon: float = EPSILON) -> jax.Array:
    """Layer norm over the last axis, without learnable parameters; the shape stays."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon)


class Activated(nn.Module):
    """Norm (when set) and activation as a module without parameters, so that it can be captured."""

    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Activates (..., features); the shape stays."""
        return self.architecture.activate(x)
