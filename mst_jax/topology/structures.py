"""Structures: which entries of a leaf compete with each other.

A structure cuts a leaf into groups of equal size; the same number of entries is active in every
group. One group is unstructured sparsity. A leaf that cannot be cut so is left unstructured.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Structure:
    """Unstructured: all entries of a leaf compete.

    Subclasses override the four methods; ``join(split(x), x.shape) == x``.
    """

    name: str = "unstructured"

    def fits(self, shape: Shape) -> bool:
        """Whether a leaf of this shape can be cut into groups; the other methods ask for it."""
        return True

    def groups(self, shape: Shape) -> int:
        """Number of groups of a leaf of this shape."""
        return 1

    def split(self, x: jax.Array) -> jax.Array:
        """``[groups, entries]`` view of a leaf."""
        return x.reshape(1, -1)

    def join(self, x: jax.Array, shape: Shape) -> jax.Array:
        """The leaf back from its groups."""
        return x.reshape(shape)


@dataclass(frozen=True)
class FanIn(Structure):
    """Every output neuron (last axis) keeps as many inputs (SRigL, Lasby et al. 2024)."""

    name: str = "fan-in"

    def fits(self, shape: Shape) -> bool:
        """Neurons have inputs."""
        return len(shape) > 1

    def groups(self, shape: Shape) -> int:
        """Number of output neurons."""
        return shape[-1]

    def split(self, x: jax.Array) -> jax.Array:
        """``[outputs, inputs]``."""
        return jnp.moveaxis(x, -1, 0).reshape(x.shape[-1], -1)

    def join(self, x: jax.Array, shape: Shape) -> jax.Array:
        """The leaf back from ``[outputs, inputs]``."""
        return jnp.moveaxis(x.reshape(shape[-1], *shape[:-1]), 0, -1)


@dataclass(frozen=True)
class NofM(Structure):
    """N of every M consecutive inputs of a neuron (2:4 is ``n_of_m(4)`` at sparsity 0.5).

    Attributes:
        m: entries of a group, along the second-last axis.
    """

    name: str = "n:m"
    m: int = 4

    def fits(self, shape: Shape) -> bool:
        """The input axis is a multiple of M."""
        return len(shape) > 1 and shape[-2] % self.m == 0

    def groups(self, shape: Shape) -> int:
        """Number of groups of M."""
        return math.prod(shape) // self.m

    def split(self, x: jax.Array) -> jax.Array:
        """``[groups, m]``."""
        return jnp.swapaxes(x, -1, -2).reshape(-1, self.m)

    def join(self, x: jax.Array, shape: Shape) -> jax.Array:
        """The leaf back from ``[groups, m]``."""
        return jnp.swapaxes(x.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2)


@dataclass(frozen=True)
class Ensemble(Structure):
    """The leading axes index independent networks (a stacked critic ensemble), one group each.

    Attributes:
        axes: number of leading axes.
    """

    name: str = "ensemble"
    axes: int = 1

    def fits(self, shape: Shape) -> bool:
        """Members have weights."""
        return len(shape) > self.axes

    def groups(self, shape: Shape) -> int:
        """Number of members."""
        return math.prod(shape[: self.axes])

    def split(self, x: jax.Array) -> jax.Array:
        """``[members, weights]``."""
        return x.reshape(math.prod(x.shape[: self.axes]), -1)


def unstructured() -> Structure:
    """All entries of a leaf compete."""
    return Structure()


def fan_in() -> Structure:
    """Constant number of inputs for every output neuron."""
    return FanIn()


def n_of_m(m: int) -> Structure:
    """N of every m consecutive inputs; N follows from the sparsity, ``N = round(m (1 - s))``.

    Raises:
        ValueError: m is not positive.
    """
    if m < 1:
        raise ValueError(f"m must be at least 1, got {m}")
    return NofM(f"n:{m}", m)


def ensemble(axes: int = 1) -> Structure:
    """Leading axes are independent networks with equal budgets and their own masks."""
    return Ensemble(axes=axes)
