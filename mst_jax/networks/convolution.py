"""Convolutions over pictures, of many seeds in one program.

On a CPU a convolution is only fast in one layout of its axes (pictures NHWC, kernel HWIO) and for
one kernel at a time. What JAX makes of it by itself is neither: gradients come in other layouts,
which XLA rearranges at the top of a program but not within a loop or a conditional, and kernels of
several seeds under `vmap` become one grouped convolution. `in_turn` writes the gradients in the
fast layout and takes kernels in turn.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.custom_batching import custom_vmap

from mst_jax.networks.orthogonal import orthogonal
from mst_jax.networks.products import rounded

LAYOUT = ("NHWC", "HWIO", "NHWC")  # of pictures, kernel and what comes out
# XLA gives convolutions of more channels than that to YNNPACK, which is 3 to 6 times slower without
# padding than with some (jaxlib 0.10.2): they get a row of zeros more.
CHANNELS_WITHOUT_PADDING = 16
# Pictures of as many bytes are convolved at a time: more of them, and what is made of them on the
# way, do not fit into a core's cache, which costs up to 3 times.
BLOCK = 2**22
# So many kernels are written out one after the other, which is a quarter faster than a loop (it
# spares copies into the fast layout); more of them are a loop over as many, compiled once.
UNROLLED = 8

Padding = tuple[tuple[int, int], tuple[int, int]]  # before and after the rows, and the columns
UNPADDED: Padding = ((0, 0), (0, 0))
Form = Callable[..., jax.Array]  # with the arguments of `convolve`


class Convolution(nn.Module):
    """A layer of square kernels: (..., H, W, C) -> (..., H', W', features).

    Attributes:
        features: channels that it makes.
        stride: pixels from one place to the next, in both directions.
        size: of the kernel, in pixels.
        kernel_init: of the kernel [size, size, C, features].
        same: pad with zeros so that a place is left for every `stride` pixels (`same_padding`).
    """

    features: int
    stride: int = 1
    size: int = 3
    kernel_init: Callable[..., jax.Array] = partial(orthogonal, scale=2**0.5)
    same: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves pictures and adds a bias."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        sides = x.shape[-3], x.shape[-2]
        padding = same_padding(sides, self.size, self.stride) if self.same else UNPADDED
        return convolve(x, kernel, self.stride, padding) + bias


def same_padding(sides: tuple[int, int], size: int, stride: int) -> Padding:
    """Zeros around pictures of these sides with which ceil(side / stride) places are left.

    An odd one comes after, as in XLA.
    """

    def of_side(side: int) -> tuple[int, int]:
        more = max((-(-side // stride) - 1) * stride + size - side, 0)
        return more // 2, more - more // 2

    return of_side(sides[0]), of_side(sides[1])


@rounded
def convolve(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding = UNPADDED
) -> jax.Array:
    """Convolves (..., H, W, C) with a kernel [K, K, C, F]: (..., H', W', F).

    A batch of pictures belongs in the leading axes; `vmap` is for what has a kernel of its own.
    """
    return form_for(jax.default_backend())(x, kernel, stride, padding)


def form_for(backend: str) -> Form:
    """What computes a convolution fastest.

    Milliseconds of a CPU's core for an encoder's gradient on pictures uint8 of nine channels (2
    cores of an AMD EPYC shared with other work, jaxlib 0.10.2, 2026-11-27; `python -m
    benchmarks.convolutions --cores=1 --clock=cpu --repeats=3`). No form was faster than `in_turn`
    by more than the noise of measuring, for any shape and number of seeds:

    | pixels; channels; strides; batch | seeds | `plain` | in a loop | `in_turn` | in a loop |
    |---|---|---|---|---|---|
    | 32; 16; 2, 2, 1; 64 | 1 | 2.3 | 57 | 2.3 | 2.6 |
    | | 3 | 24 | 205 | 8.3 | 8.7 |
    | 48; 16; 2, 2, 1, 1; 64 | 1 | 7.0 | 111 | 6.9 | 8.0 |
    | | 3 | 65 | 371 | 27 | 26 |
    | 84; 32; 2, 1, 1, 1; 8 | 1 | 19 | 638 | 16 | 16 |
    | | 3 | 214 | 1996 | 52 | 51 |

    On a GPU nothing has been measured: JAX's own form stays.

    Args:
        backend: of JAX, "cpu", "gpu" or "tpu".
    """
    return in_turn if backend == "cpu" else plain


def plain(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding = UNPADDED) -> jax.Array:
    """`convolve` as JAX differentiates and batches it."""
    out = lax.conv_general_dilated(
        _batch(x), kernel, (stride, stride), padding, dimension_numbers=LAYOUT
    )
    return out.reshape(*x.shape[:-3], *out.shape[1:])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def in_turn(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding = UNPADDED) -> jax.Array:
    """`convolve`, one kernel after the other under `vmap`, with gradients in the fast layout.

    It is as fast in loops and conditionals as outside. It has no forward-mode derivative and no
    second one.
    """
    return _of_each_kernel(partial(_output, stride=stride, padding=padding))(x, kernel)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return in_turn(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, read: tuple[jax.Array, jax.Array], grads: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = read
    sides = x.shape[-3], x.shape[-2]
    of_input = partial(_input_gradient, stride=stride, padding=padding, sides=sides)
    of_kernel = partial(_kernel_gradient, stride=stride, padding=padding, size=kernel.shape[0])
    return _of_each_kernel(of_input)(grads, kernel), _of_each(of_kernel)(x, grads)


in_turn.defvjp(_forward, _backward)


def _output(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """What `convolve` returns."""
    of_block = partial(_convolution, kernel=kernel, padding=padding, stride=stride)
    out = _in_blocks(of_block, _batch(x))
    return out.reshape(*x.shape[:-3], *out.shape[2:])


def _input_gradient(
    grads: jax.Array, kernel: jax.Array, stride: int, padding: Padding, sides: tuple[int, int]
) -> jax.Array:
    """Gradient (..., *sides, C) from that of the output (..., H', W', F): a convolution of it."""
    size = kernel.shape[0]
    rows, columns = (
        (size - 1 - before, size - 1 - after + _unread(before + side + after, out, stride, size))
        for side, out, (before, after) in zip(sides, grads.shape[-3:-1], padding, strict=True)
    )
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    of_block = partial(_convolution, kernel=turned, padding=(rows, columns), spread_picture=stride)
    out = _in_blocks(of_block, _batch(grads))
    return out.reshape(*grads.shape[:-3], *out.shape[2:])


def _kernel_gradient(
    x: jax.Array, grads: jax.Array, stride: int, padding: Padding, size: int
) -> jax.Array:
    """Gradient [K, K, C, F] from inputs (..., H, W, C) and that of the output (..., H', W', F).

    A convolution once more: the channels are its batch, and the batch its channels.
    """
    rows, columns = (
        (before, after - _unread(before + side + after, out, stride, size))
        for side, out, (before, after) in zip(
            x.shape[-3:-1], grads.shape[-3:-1], padding, strict=True
        )
    )

    def of_block(x: jax.Array, grads: jax.Array) -> jax.Array:
        pictures, kernel = x.transpose(3, 1, 2, 0), grads.transpose(1, 2, 0, 3)
        out = _convolution(pictures, kernel, (rows, columns), spread_kernel=stride)
        return out.transpose(1, 2, 0, 3)

    return _in_blocks(of_block, _batch(x), _batch(grads)).sum(axis=0)


def _convolution(
    pictures: jax.Array,
    kernel: jax.Array,
    padding: Padding,
    stride: int = 1,
    spread_picture: int = 1,
    spread_kernel: int = 1,
) -> jax.Array:
    """Convolves (B, H, W, C) with [K, L, C, F] in the fast layout.

    Args:
        pictures: (B, H, W, C).
        kernel: [K, L, C, F].
        padding: pixels of zeros before and after the rows and the columns, or less than none.
        stride: pixels from one place to the next.
        spread_picture: distance of the picture's pixels, with zeros between them.
        spread_kernel: likewise of the kernel's.

    Returns:
        (B, H', W', F).
    """

    def convolved(padding: Padding) -> jax.Array:
        return lax.conv_general_dilated(
            pictures,
            kernel,
            (stride, stride),
            padding,
            lhs_dilation=(spread_picture, spread_picture),
            rhs_dilation=(spread_kernel, spread_kernel),
            dimension_numbers=LAYOUT,
        )

    (before, after), columns = padding
    unpadded = before == after == columns[0] == columns[1] == 0
    if not unpadded or max(kernel.shape[2:]) <= CHANNELS_WITHOUT_PADDING:
        return convolved(padding)
    rows = (pictures.shape[1] - (kernel.shape[0] - 1) * spread_kernel - 1) // stride + 1
    return convolved(((0, 1), (0, 0)))[:, :rows]


def _in_blocks(fn: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """`fn` of blocks of arrays that lead with the same batch; a leading axis of blocks."""
    count = len(arrays[0])
    most = max(1, BLOCK * count // max(array.nbytes for array in arrays))
    size = max(n for n in range(1, min(count, most) + 1) if count % n == 0)
    if size == count or 4 * size < most:  # a batch that cannot be shared out evenly stays whole
        return fn(*arrays)[None]
    blocks = [array.reshape(-1, size, *array.shape[1:]) for array in arrays]
    return lax.map(lambda own: fn(*own), blocks)


def _batch(pictures: jax.Array) -> jax.Array:
    """(..., H, W, C) as (B, H, W, C)."""
    return pictures.reshape(-1, *pictures.shape[-3:])


def _unread(inputs: int, outputs: int, stride: int, size: int) -> int:
    """Pixels at the end of a side, padding included, that no kernel reaches."""
    return inputs - ((outputs - 1) * stride + size)


def _of_each_kernel(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`fn(pictures, kernel)`; under `vmap` once for each kernel, or once for all that share it."""

    @custom_vmap
    def apply(pictures: jax.Array, kernel: jax.Array) -> jax.Array:
        return fn(pictures, kernel)

    @apply.def_vmap
    def _(
        _: int, batched: list[bool], pictures: jax.Array, kernel: jax.Array
    ) -> tuple[jax.Array, bool]:
        if not batched[1]:  # one more leading axis
            return apply(pictures, kernel), True
        return _loop(apply, batched, pictures, kernel), True

    return apply


def _of_each(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`fn`, once for each under `vmap`."""

    @custom_vmap
    def apply(*operands: jax.Array) -> jax.Array:
        return fn(*operands)

    @apply.def_vmap
    def _(_: int, batched: list[bool], *operands: jax.Array) -> tuple[jax.Array, bool]:
        return _loop(apply, batched, *operands), True

    return apply


def _loop(fn: Callable[..., jax.Array], batched: list[bool], *operands: jax.Array) -> jax.Array:
    """`fn` of each entry along the leading axes of those operands that are `batched`."""
    own = [operand for operand, is_own in zip(operands, batched, strict=True) if is_own]

    def of_one(_: None, entries: list[jax.Array]) -> tuple[None, jax.Array]:
        left = iter(entries)
        return None, fn(*[next(left) if b else x for x, b in zip(operands, batched, strict=True)])

    return lax.scan(of_one, None, own, unroll=min(UNROLLED, len(own[0])))[1]
