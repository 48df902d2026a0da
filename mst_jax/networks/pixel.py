"""Networks on pictures: DrQ-v2's encoder, critic and actor (docs/specs/drqv2.md §1.2).

The encoder's features, one row of numbers for a picture, are what critic and actor read. Each has a
trunk of its own that compresses them, and heads on top: linear layers under the architecture that
the module's settings describe.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks.activity import Activity, activity_of
from mst_jax.networks.architecture import EPSILON, Activated, Architecture, Params
from mst_jax.networks.build import network
from mst_jax.networks.convolution import Convolution
from mst_jax.networks.orthogonal import orthogonal
from mst_jax.networks.shared import Linear

KERNEL = 3  # pixels of a kernel's side
STRIDE = 2  # of those convolutions that make the picture smaller
PADDINGS = ("valid", "same")
orthogonal_relu = partial(orthogonal, scale=2**0.5)


class Convolutions(NamedTuple):
    """Convolutions of 3x3, one on the other.

    Attributes:
        channels: of each.
        depth: how many there are.
        strided: how many of them, the first ones, move by two pixels; the others move by one.
        padding: one of `PADDINGS`.
    """

    channels: int
    depth: int
    strided: int
    padding: str = "valid"

    def strides(self) -> list[int]:
        """Pixels that each moves by."""
        return [STRIDE if index < self.strided else 1 for index in range(self.depth)]

    def sides(self, shape: tuple[int, int, int], setting: str) -> list[tuple[int, int]]:
        """Height and width after each, of pictures (H, W, C).

        Raises:
            ValueError: nothing is left of the picture; `setting` is what holds depth and strided.
        """
        height, width, _ = shape
        lost = 0 if self.padding == "same" else KERNEL - 1
        sides = []
        for number, stride in enumerate(self.strides(), start=1):
            height, width = ((side - lost - 1) // stride + 1 for side in (height, width))
            if min(height, width) < 1:
                raise ValueError(
                    f"pictures of {shape[0]}x{shape[1]} are too small for {setting}.depth="
                    f"{self.depth} with {setting}.strided={self.strided}: convolution {number} "
                    "leaves nothing; lower one of the two, or take larger pictures"
                )
            sides.append((height, width))
        return sides


class PixelEncoder(NamedTuple):
    """Convolutions over pictures.

    Attributes:
        init: key -> parameters.
        apply: parameters, pictures uint8 (..., H, W, C) -> features (..., size).
        activity: of its channels, parameters and pictures (B, H, W, C).
        size: how many features a picture has.
        positions: kernel -> how often it is applied to a picture.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    activity: Callable[[Params, jax.Array], Activity]
    size: int
    positions: dict[str, int]


class PixelCritic(NamedTuple):
    """Two value heads on one trunk; `params` has the entries trunk, q1 and q2.

    Attributes:
        init: key -> parameters.
        apply: parameters, features (..., F) and actions (..., A) -> values (..., 2).
        activity: likewise, on a batch.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array, jax.Array], jax.Array]
    activity: Callable[[Params, jax.Array, jax.Array], Activity]


class PixelActor(NamedTuple):
    """A deterministic policy on a trunk of its own; `params` has the entries trunk and policy.

    Attributes:
        init: key -> parameters.
        apply: parameters, features (..., F) -> the action before its tanh (..., A).
        activity: likewise, on a batch.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    activity: Callable[[Params, jax.Array], Activity]


class _Encoder(nn.Module):
    architecture: Architecture
    convolutions: Convolutions

    @nn.compact
    def __call__(self, picture: jax.Array) -> jax.Array:
        return convolved(picture, self.convolutions, self.architecture, orthogonal_relu)


class _Compressed(nn.Module):
    """Layer norm with scale and offset, then tanh: a trunk's end as a module, to be captured."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name="norm")
        return jnp.tanh(norm(x))


class _Trunk(nn.Module):
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Linear(self.size, kernel_init=orthogonal, name="layer_1")(x)
        return _Compressed(name="active_1")(x)


class _Critic(nn.Module):
    size: int
    architecture: Architecture

    @nn.compact
    def __call__(self, features: jax.Array, action: jax.Array) -> jax.Array:
        x = jnp.concatenate([_Trunk(self.size, name="trunk")(features), action], axis=-1)
        return jnp.concatenate([_head(1, self.architecture, q)(x) for q in ("q1", "q2")], axis=-1)


class _Actor(nn.Module):
    size: int
    action_size: int
    architecture: Architecture

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        x = _Trunk(self.size, name="trunk")(features)
        return _head(self.action_size, self.architecture, "policy")(x)


def make_pixel_encoder(
    shape: tuple[int, int, int], architecture: Architecture, strided: int
) -> PixelEncoder:
    """Convolutions without padding.

    Args:
        shape: of a picture, (H, W, C), all its frames in the last axis.
        architecture: channels of each convolution (`hidden`), how many there are (`depth`), and
            what follows each of them; without shortcuts.
        strided: how many of them, the first ones, move by two pixels; the others move by one.

    Raises:
        ValueError: the picture is too small for them.
    """
    convolutions = Convolutions(architecture.hidden, architecture.depth, strided)
    sides = convolutions.sides(shape, "encoder")
    module = _Encoder(architecture, convolutions)
    return PixelEncoder(
        lambda key: module.init(key, jnp.zeros(shape, jnp.uint8))["params"],
        _apply(module),
        activity_of(module, features=""),
        math.prod(sides[-1]) * architecture.hidden,
        places(sides),
    )


def make_pixel_critic(
    features: int, action_size: int, trunk: int, architecture: Architecture
) -> PixelCritic:
    """Two heads that share a trunk.

    Args:
        features: F, of a picture.
        action_size: A.
        trunk: numbers that it leaves of the features.
        architecture: of the hidden layers of each head.
    """
    module = _Critic(trunk, architecture)
    return PixelCritic(
        lambda key: module.init(key, jnp.zeros(features), jnp.zeros(action_size))["params"],
        _apply(module),
        activity_of(module, features=_last_hidden("q1", architecture)),
    )


def make_pixel_actor(
    features: int, action_size: int, trunk: int, architecture: Architecture
) -> PixelActor:
    """A policy; arguments are those of `make_pixel_critic`."""
    module = _Actor(trunk, action_size, architecture)
    return PixelActor(
        lambda key: module.init(key, jnp.zeros(features))["params"],
        _apply(module),
        activity_of(module, features=_last_hidden("policy", architecture)),
    )


def convolved(
    picture: jax.Array,
    convolutions: Convolutions,
    architecture: Architecture,
    kernel_init: Callable[..., jax.Array],
) -> jax.Array:
    """Features (..., F) of pictures uint8 (..., H, W, C), within the module that calls.

    Args:
        picture: pixels, which become -0.5 to 0.5.
        convolutions: its layers are layer_1, layer_2, ...
        architecture: what follows each of them.
        kernel_init: of their kernels.
    """
    x = picture.astype(jnp.float32) / 255.0 - 0.5
    for number, stride in enumerate(convolutions.strides(), start=1):
        x = Convolution(
            convolutions.channels,
            stride,
            KERNEL,
            kernel_init,
            same=convolutions.padding == "same",
            name=f"layer_{number}",
        )(x)
        x = Activated(architecture, name=f"active_{number}")(x)
    return x.reshape(*x.shape[:-3], -1)


def places(sides: list[tuple[int, int]]) -> dict[str, int]:
    """Kernel -> how often it is applied to a picture, of the sides after each convolution."""
    return {f"layer_{n}/kernel": math.prod(side) for n, side in enumerate(sides, start=1)}


def _apply(module: nn.Module) -> Callable[..., Any]:
    return lambda params, *inputs: module.apply({"params": params}, *inputs)


def _head(output: int, architecture: Architecture, name: str) -> nn.Module:
    return network(output, architecture, kernel_init=orthogonal, name=name)


def _last_hidden(head: str, architecture: Architecture) -> str:
    """Path of the last hidden layer of a head."""
    simba = architecture.residual == "simba"
    return f"{head}/trunk" if simba else f"{head}/active_{architecture.depth}"
