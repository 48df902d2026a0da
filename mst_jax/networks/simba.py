"""SimBa's residual network (Lee et al., 2025; docs/specs/network-sparsity.md §2.1).

A linear embedding, pre-norm residual blocks with a linear skip path, and a final norm.
"""

import jax
from flax import linen as nn

from mst_jax.networks.architecture import Architecture

EXPANSION = 4  # width of a block's hidden layer, relative to the network's

orthogonal = nn.initializers.orthogonal(1.0)
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
        x = nn.Dense(arch.hidden, kernel_init=orthogonal, name="embed")(x)
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
        x = nn.Dense(EXPANSION * arch.hidden, kernel_init=he_normal, name="expand")(x)
        x = _Nonlinearity(arch, name="active")(x)
        return nn.Dense(arch.hidden, kernel_init=he_normal, name="project")(x)


class _Nonlinearity(nn.Module):
    """The activation function as a module, so that its output can be captured."""

    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.architecture.nonlinearity(x)


def norm(architecture: Architecture, name: str) -> nn.Module:
    """Layer norm with learnable scale and offset (eps 1e-6), or nothing if `norm` is off."""
    return nn.LayerNorm(epsilon=1e-6, name=name) if architecture.norm else _Identity()


class _Identity(nn.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x
