"""Convolutions over the pictures of games: Nature's and IMPALA's (docs/specs/der.md §1.2).

All convolutions are padded, so that a stride of s leaves a place for every s pixels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks.activity import activity_of
from mst_jax.networks.architecture import Activated, Architecture, Params
from mst_jax.networks.convolution import Convolution, same_padding
from mst_jax.networks.pixel import PixelEncoder

POOL, POOL_STRIDE = 3, 2  # pixels of a side, and from one place to the next


class Layer(NamedTuple):
    """One of Nature's convolutions.

    Attributes:
        channels: that it makes.
        size: of its kernel, in pixels.
        stride: pixels from one place to the next.
    """

    channels: int
    size: int
    stride: int


class _Nature(nn.Module):
    layers: tuple[Layer, ...]
    architecture: Architecture

    @nn.compact
    def __call__(self, picture: jax.Array) -> jax.Array:
        x = picture / 255.0
        for number, layer in enumerate(self.layers, start=1):
            x = _convolution(layer, nn.initializers.xavier_uniform(), f"layer_{number}")(x)
            x = Activated(self.architecture, name=f"active_{number}")(x)
        return x.reshape(*x.shape[:-3], -1)


class _Residual(nn.Module):
    """Two convolutions, each after an activation, around which a shortcut goes."""

    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer, init = Layer(x.shape[-1], 3, 1), nn.initializers.lecun_normal()
        branch = _convolution(layer, init, "expand")(self.architecture.activate(x))
        branch = Activated(self.architecture, name="active")(branch)
        return x + _convolution(layer, init, "project")(branch)


class _Stack(nn.Module):
    """A convolution, a maximum over places, and residual blocks."""

    channels: int
    blocks: int
    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first = Layer(self.channels, 3, 1)
        x = max_pool(_convolution(first, nn.initializers.xavier_uniform(), "embed")(x))
        for number in range(1, self.blocks + 1):
            x = _Residual(self.architecture, name=f"block_{number}")(x)
        return x


class _Impala(nn.Module):
    channels: tuple[int, ...]
    blocks: int
    architecture: Architecture

    @nn.compact
    def __call__(self, picture: jax.Array) -> jax.Array:
        x = picture / 255.0
        for number, channels in enumerate(self.channels, start=1):
            x = _Stack(channels, self.blocks, self.architecture, name=f"stack_{number}")(x)
        x = Activated(self.architecture, name="active")(x)
        return x.reshape(*x.shape[:-3], -1)


def make_nature(
    shape: tuple[int, int, int], layers: Sequence[Layer], architecture: Architecture
) -> PixelEncoder:
    """The convolutions of Mnih et al. (2015), or others; `params` has layer_1, layer_2, ...

    Args:
        shape: of a picture, (H, W, C), all its frames in the last axis.
        layers: convolutions, one on the other.
        architecture: what follows each of them.

    Raises:
        ValueError: a kernel reaches beyond the picture.
    """
    sides, positions = shape[:2], {}
    for number, layer in enumerate(layers, start=1):
        _require_room(f"convolution {number}", sides, layer, shape)
        sides = _sides_after(sides, layer.stride)
        positions[f"layer_{number}/kernel"] = math.prod(sides)
    size = math.prod(sides) * layers[-1].channels
    return _encoder(_Nature(tuple(layers), architecture), shape, size, positions)


def make_impala(
    shape: tuple[int, int, int], channels: Sequence[int], blocks: int, architecture: Architecture
) -> PixelEncoder:
    """The residual stacks of Espeholt et al. (2018); `params` has stack_1, stack_2, ...

    Args:
        shape: of a picture, (H, W, C), all its frames in the last axis.
        channels: of each stack.
        blocks: residual blocks of a stack.
        architecture: the activation before each convolution but a stack's first.

    Raises:
        ValueError: a kernel reaches beyond the picture.
    """
    sides, positions = shape[:2], {}
    for number, own in enumerate(channels, start=1):
        _require_room(f"stack {number}", sides, Layer(own, 3, 1), shape)
        positions[f"stack_{number}/embed/kernel"] = math.prod(sides)
        sides = _sides_after(sides, POOL_STRIDE)
        if blocks:
            _require_room(f"stack {number}", sides, Layer(own, 3, 1), shape)
        for block in range(1, blocks + 1):
            path = f"stack_{number}/block_{block}"
            positions |= dict.fromkeys(
                (f"{path}/expand/kernel", f"{path}/project/kernel"), math.prod(sides)
            )
    size = math.prod(sides) * channels[-1]
    return _encoder(_Impala(tuple(channels), blocks, architecture), shape, size, positions)


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of 3x3 pixels at every second one: (..., H, W, C) -> (..., H/2, W/2, C), up.

    A maximum of shifted pictures, along one axis after the other: the gradient that XLA has for its
    own pooling takes a CPU many times as long (docs/specs/der.md §2). Equal pixels share the
    gradient.
    """
    padding = same_padding((x.shape[-3], x.shape[-2]), POOL, POOL_STRIDE)
    for axis, around in zip((x.ndim - 3, x.ndim - 2), padding, strict=True):
        last = POOL_STRIDE * (-(-x.shape[axis] // POOL_STRIDE) - 1)  # first pixel of the last place
        x = jnp.pad(
            x, [around if a == axis else (0, 0) for a in range(x.ndim)], constant_values=-jnp.inf
        )
        x = _largest(
            [jax.lax.slice_in_dim(x, k, k + last + 1, POOL_STRIDE, axis) for k in range(POOL)]
        )
    return x


def _largest(arrays: Sequence[jax.Array]) -> jax.Array:
    largest = arrays[0]
    for array in arrays[1:]:
        largest = jnp.maximum(largest, array)
    return largest


def _encoder(
    module: nn.Module, shape: tuple[int, int, int], size: int, positions: dict[str, int]
) -> PixelEncoder:
    def apply(params: Params, picture: jax.Array) -> Any:
        return module.apply({"params": params}, picture)

    return PixelEncoder(
        lambda key: module.init(key, jnp.zeros(shape, jnp.uint8))["params"],
        apply,
        activity_of(module, features=""),
        size,
        positions,
    )


def _convolution(layer: Layer, init: Callable[..., jax.Array], name: str) -> Convolution:
    return Convolution(layer.channels, layer.stride, layer.size, init, same=True, name=name)


def _sides_after(sides: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-sides[0] // stride), -(-sides[1] // stride)


def _require_room(
    what: str, sides: tuple[int, int], layer: Layer, shape: tuple[int, int, int]
) -> None:
    """Raises ValueError where part of a kernel sees nothing but padding, at every place."""
    places = _sides_after(sides, layer.stride)
    padding = same_padding(sides, layer.size, layer.stride)
    for side, count, (before, _) in zip(sides, places, padding, strict=True):
        last = (count - 1) * layer.stride
        if before > last or layer.size - 1 - before > side - 1:
            raise ValueError(
                f"pictures of {shape[0]}x{shape[1]} are too small for this encoder: the kernel of "
                f"{what}, {layer.size} pixels wide, reaches beyond the {sides[0]}x{sides[1]} that "
                "it sees; take fewer or smaller convolutions (encoder.channels, encoder.kernels), "
                "or larger pictures"
            )
