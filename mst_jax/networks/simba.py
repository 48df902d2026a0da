"""SimBa's residual network (Lee et al., 2025; docs/specs/network-sparsity.md §2.1).

A linear embedding, pre-norm residual blocks with a linear skip path, and a final norm.
"""

import jax
import numpy as np
from flax import linen as nn

from mst_jax.networks.architecture import ACTIVATION_OPERATIONS, Architecture, Params
from mst_jax.networks.operations import (
    Add,
    Keep,
    LayerNorm,
    Operation,
    Scale,
    Shift,
    dense_of,
)
from mst_jax.networks.orthogonal import orthogonal
from mst_jax.networks.shared import Linear

EXPANSION = 4  # width of a block's hidden layer, relative to the network's
EPSILON = 1e-6  # of its norms

he_normal = nn.initializers.he_normal()


class SimBa(nn.Module):
    """Features of width `hidden` from `depth` blocks: (..., inputs) to (..., hidden).

    Attributes:
        architecture: width, number of blocks, activation, and whether the norms are there.
    """

    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., inputs) to (..., hidden)."""
        arch = self.architecture
        x = Linear(arch.hidden, kernel_init=orthogonal, name="embed")(x)
        for index in range(arch.depth):
            x = x + _Branch(arch, name=f"block_{index + 1}")(x)
        return norm(arch, "norm")(x)


class _Branch(nn.Module):
    """What a block adds to its input: Dense_h(activation(Dense_4h(LN(x))))."""

    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        arch = self.architecture
        x = norm(arch, "norm")(x)
        x = Linear(EXPANSION * arch.hidden, kernel_init=he_normal, name="expand")(x)
        x = _Nonlinearity(arch, name="active")(x)
        return Linear(arch.hidden, kernel_init=he_normal, name="project")(x)


class _Nonlinearity(nn.Module):
    """The activation function as a module, so that its output can be captured."""

    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.architecture.nonlinearity(x)


def norm(architecture: Architecture, name: str) -> nn.Module:
    """Layer norm with learnable scale and offset, or nothing if `norm` is off."""
    return nn.LayerNorm(epsilon=EPSILON, name=name) if architecture.norm else _Identity()


class _Identity(nn.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def simba_operations(params: Params, architecture: Architecture) -> list[Operation]:
    """A `SimBa` with these parameters as operations."""
    found: list[Operation] = [dense_of(params["embed"])]
    for index in range(architecture.depth):
        branch = params[f"block_{index + 1}"]
        found += [
            Keep(),
            *_norm_operations(branch, architecture),
            dense_of(branch["expand"]),
            ACTIVATION_OPERATIONS[architecture.activation],
            dense_of(branch["project"]),
            Add(),
        ]
    return found + _norm_operations(params, architecture)


def _norm_operations(params: Params, architecture: Architecture) -> list[Operation]:
    """The norm of a block, or of the end."""
    if not architecture.norm:
        return []
    scale, offset = (np.asarray(params["norm"][name]) for name in ("scale", "bias"))
    return [LayerNorm(EPSILON), Scale(scale), Shift(offset)]
