"""Structures: which entries of a leaf compete with each other, and which live and die together.

A structure cuts a leaf into groups of equal size and every group into units; the same number of
units is active in every group. One group of single entries is unstructured sparsity. A leaf that
cannot be cut so is left unstructured. All axes of a kernel but the last are inputs of its neurons;
`ensemble` sets leading axes apart that index networks, and `tied` an axis whose entries share one
decision.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Structure:
    """Unstructured: all entries of a leaf compete.

    Subclasses override the methods; ``join(split(x), x.shape) == x`` for any ``x`` if units are
    single entries, else for masks of whole units. Groups are numbered by member, then column, then
    place.
    """

    name: str = "unstructured"

    @property
    def unit(self) -> int:
        """Entries of a unit, of a leaf without tied axes."""
        return 1

    def unit_of(self, shape: Shape) -> int:
        """Entries of a unit of a leaf of this shape."""
        return self.unit

    def untied(self, shape: Shape) -> Shape:
        """The shape without tied axes: that of a single decision for each of its entries."""
        return shape

    def fits(self, shape: Shape) -> bool:
        """Whether a leaf of this shape can be cut into groups; the other methods ask for it."""
        return True

    def groups(self, shape: Shape) -> int:
        """Number of groups of a leaf of this shape."""
        return 1

    def split(self, x: jax.Array) -> jax.Array:
        """``[members, places, units, columns]`` of a leaf; only what differs in its unit competes.

        Of a unit it holds the mean, or the first of flags and random bits.
        """
        return x.reshape(1, 1, -1, 1)

    def join(self, x: jax.Array, shape: Shape) -> jax.Array:
        """The leaf back from its groups."""
        return x.reshape(shape)


@dataclass(frozen=True)
class FanIn(Structure):
    """Every output neuron (last axis) keeps as many inputs (SRigL, Lasby et al. 2024)."""

    name: str = "fan_in"

    def fits(self, shape: Shape) -> bool:
        """Neurons have inputs."""
        return len(shape) > 1

    def groups(self, shape: Shape) -> int:
        """Number of output neurons."""
        return shape[-1]

    def split(self, x: jax.Array) -> jax.Array:
        """``[1, 1, inputs, outputs]``."""
        return x.reshape(1, 1, -1, x.shape[-1])


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
        """``[leading axes, inputs / m, m, outputs]``."""
        *_, inputs, outputs = x.shape
        return x.reshape(-1, inputs // self.m, self.m, outputs)


@dataclass(frozen=True)
class Block(Structure):
    """Tiles of rows times columns weights, as many of them for every ``columns`` outputs.

    Attributes:
        rows: neighbouring inputs of a tile (second-last axis).
        columns: neighbouring outputs of a tile (last axis); they have the same inputs.
    """

    name: str = "block"
    rows: int = 1
    columns: int = 1

    @property
    def unit(self) -> int:
        """Weights of a tile."""
        return self.rows * self.columns

    def fits(self, shape: Shape) -> bool:
        """Both axes are multiples of the tile's."""
        return len(shape) > 1 and shape[-2] % self.rows == 0 and shape[-1] % self.columns == 0

    def groups(self, shape: Shape) -> int:
        """Number of sets of ``columns`` outputs."""
        return shape[-1] // self.columns

    def split(self, x: jax.Array) -> jax.Array:
        """``[1, 1, tiles, sets of outputs]``."""
        tiles = x.reshape(-1, self.rows, x.shape[-1] // self.columns, self.columns)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return tiles[:, 0, :, 0][None, None]
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return jnp.mean(tiles, axis=(1, 3), dtype=wide)[None, None]

    def join(self, x: jax.Array, shape: Shape) -> jax.Array:
        """The leaf back from ``[1, 1, tiles, sets of outputs]``."""
        *_, tiles, groups = x.shape
        whole = (tiles, self.rows, groups, self.columns)
        return jnp.broadcast_to(x.reshape(tiles, 1, groups, 1), whole).reshape(shape)


@dataclass(frozen=True)
class Ensemble(Structure):
    """The leading axes index independent networks (a stacked critic ensemble).

    Attributes:
        axes: number of leading axes.
        inside: the structure of every network; its groups are the groups.
    """

    name: str = "ensemble"
    axes: int = 1
    inside: Structure = field(default_factory=Structure)

    @property
    def unit(self) -> int:
        """Entries of a unit of one network."""
        return self.inside.unit

    def unit_of(self, shape: Shape) -> int:
        """Entries of a unit of one network of this leaf."""
        return self.inside.unit_of(shape[self.axes :])

    def untied(self, shape: Shape) -> Shape:
        """The networks without what is tied in them."""
        return (*shape[: self.axes], *self.inside.untied(shape[self.axes :]))

    def fits(self, shape: Shape) -> bool:
        """Members have weights, which can be cut."""
        return len(shape) > self.axes and self.inside.fits(shape[self.axes :])

    def groups(self, shape: Shape) -> int:
        """Number of groups of all members."""
        return math.prod(shape[: self.axes]) * self.inside.groups(shape[self.axes :])

    def split(self, x: jax.Array) -> jax.Array:
        """``[members, places, units, columns]`` of all networks."""
        networks = jax.vmap(self.inside.split)(x.reshape(-1, *x.shape[self.axes :]))
        return networks.reshape(-1, *networks.shape[2:])

    def join(self, x: jax.Array, shape: Shape) -> jax.Array:
        """The leaf back from all networks."""
        networks = x.reshape(math.prod(shape[: self.axes]), -1, *x.shape[1:])
        join = jax.vmap(lambda own: self.inside.join(own, shape[self.axes :]))
        return join(networks).reshape(shape)


@dataclass(frozen=True)
class Tied(Structure):
    """The entries along an axis share one decision (mean and scale of a noisy weight).

    Attributes:
        axis: whose entries live and die together; negative ones count from the last.
        inside: the structure of the leaf without that axis; a unit is one of its units, at every
            place of the axis.
    """

    name: str = "tied"
    axis: int = 0
    inside: Structure = field(default_factory=Structure)

    @property
    def unit(self) -> int:
        """Entries of a unit at one place of the axis."""
        return self.inside.unit

    def unit_of(self, shape: Shape) -> int:
        """Entries of a unit at all places of the axis."""
        return shape[self.axis] * self.inside.unit_of(self._rest(shape))

    def untied(self, shape: Shape) -> Shape:
        """The shape without the axis."""
        return self.inside.untied(self._rest(shape))

    def fits(self, shape: Shape) -> bool:
        """There is such an axis, and the rest can be cut."""
        there = -len(shape) <= self.axis < len(shape)
        return there and len(shape) > 1 and self.inside.fits(self._rest(shape))

    def groups(self, shape: Shape) -> int:
        """Number of groups of the rest."""
        return self.inside.groups(self._rest(shape))

    def split(self, x: jax.Array) -> jax.Array:
        """``[members, places, units, columns]`` of the rest."""
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return self.inside.split(jnp.take(x, 0, axis=self.axis))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return self.inside.split(jnp.mean(x, axis=self.axis, dtype=wide))

    def join(self, x: jax.Array, shape: Shape) -> jax.Array:
        """The leaf back from the groups of the rest."""
        one = self.inside.join(x, self._rest(shape))
        return jnp.broadcast_to(jnp.expand_dims(one, self.axis % len(shape)), shape)

    def _rest(self, shape: Shape) -> Shape:
        axis = self.axis % len(shape)
        return (*shape[:axis], *shape[axis + 1 :])


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


def block(rows: int, columns: int) -> Structure:
    """Whole tiles of weights, as many for every ``columns`` neighbouring outputs.

    Args:
        rows: neighbouring inputs of a tile.
        columns: neighbouring outputs of a tile.

    Returns:
        The structure; a tile's score is the mean of its weights' scores.

    Raises:
        ValueError: rows or columns are not positive.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns must be at least 1, got {rows} and {columns}")
    return Block(f"block{rows}x{columns}", rows, columns)


def shared_fan_in(columns: int) -> Structure:
    """Every ``columns`` neighbouring neurons share their inputs, which are any, as many for all.

    Raises:
        ValueError: columns is not positive.
    """
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    return Block(f"shared{columns}", 1, columns)


def ensemble(axes: int = 1, inside: Structure | None = None) -> Structure:
    """Leading axes are independent networks with equal budgets and their own masks.

    Args:
        axes: number of leading axes.
        inside: structure of every network; unstructured by default.
    """
    if inside is None:
        return Ensemble(axes=axes)
    return Ensemble(f"ensemble of {inside.name}", axes, inside)


def tied(axis: int = 0, inside: Structure | None = None) -> Structure:
    """Entries along an axis live and die together, as the mean and scale of a noisy weight do.

    A unit's score is the mean of its entries' scores, a random one the first one's. Allocations
    see the leaf without the axis: it is as dense as a leaf of one entry would be.

    Args:
        axis: the axis.
        inside: structure of the leaf without that axis; unstructured by default.
    """
    if inside is None or inside == Structure():
        return Tied(axis=axis)
    return Tied(f"tied {inside.name}", axis, inside)
