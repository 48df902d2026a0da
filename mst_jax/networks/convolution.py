"""Convolutions over pictures, of many seeds in one program."""

from collections.abc import Callable

import jax
from flax import linen as nn


class Convolution(nn.Module):
    """A layer of square kernels without padding: (..., H, W, C) -> (..., H', W', features).

    Attributes:
        features: channels that it makes.
        stride: pixels from one place to the next, in both directions.
        size: of the kernel, in pixels.
        kernel_init: of the kernel [size, size, C, features].
    """

    features: int
    stride: int = 1
    size: int = 3
    kernel_init: Callable[..., jax.Array] = nn.initializers.orthogonal(2**0.5)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves pictures and adds a bias."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return convolve(x, kernel, self.stride) + bias


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves (..., H, W, C) with a kernel [K, K, C, F] without padding: (..., H', W', F)."""
    pictures = x.reshape(-1, *x.shape[-3:])
    out = jax.lax.conv_general_dilated(
        pictures, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return out.reshape(*x.shape[:-3], *out.shape[1:])
