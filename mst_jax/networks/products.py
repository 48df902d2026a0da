"""The products of layers: of float32, or of operands in bfloat16 (`--precision=bf16`).

In bf16 the two operands of every product are rounded to bfloat16, in the forward pass and in both
gradients; their products are summed in float32, and what comes out is float32. So parameters,
gradients, moments and everything between two products keep their precision, and the gradient of a
batch is no coarser than its sum: hardly a tie arises where weights are chosen by it.
"""

from collections.abc import Callable
from functools import wraps
from string import ascii_uppercase
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

PRECISIONS = ("float32", "bf16")
BF16_BITS = (8, 7)  # of exponent and mantissa

P = ParamSpec("P")
T = TypeVar("T")
X = TypeVar("X")
K = TypeVar("K")

# Of the function that is traced. Caches of `jax.jit` know it: no program of another is taken.
_precision = jax.make_user_context("float32")


def in_precision(precision: str, fn: Callable[P, T]) -> Callable[P, T]:
    """A function with the products of its layers, and of their gradients, in a precision.

    Args:
        precision: "float32", as JAX multiplies float32 by default, or "bf16".
        fn: what is traced with arrays; gradients must be taken inside of it, since some are
            traced after what they are of.

    Raises:
        ValueError: another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is none of {', '.join(PRECISIONS)}")

    @wraps(fn)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        with _precision(precision):
            return fn(*args, **kwargs)

    return computed


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Inputs (..., I) times a kernel [I, O]: (..., O); ValueError for another rank of kernel."""
    if kernel.ndim != 2:
        raise ValueError(f"a kernel is [inputs, outputs]; this one has the shape {kernel.shape}")
    if _precision.value == "float32":
        return x @ kernel
    return _product(x.astype(jnp.float32), kernel.astype(jnp.float32))


def dot_general(x: jax.Array, kernel: jax.Array, dimensions: Any, precision: Any) -> jax.Array:
    """`product` in place of `lax.dot_general`, with the dimensions that `nn.Dense` asks for."""
    if _precision.value == "float32":
        return lax.dot_general(x, kernel, dimensions, precision)
    return _product(x, kernel)


def einsum(axes: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """`jnp.einsum` of two operands; its caller must write the gradients."""
    if _precision.value == "float32":
        return jnp.einsum(axes, x, y)
    return _summed(axes, _lowered(x), _lowered(y))


def kernel_gradient(axes: str, x: jax.Array, slope: jax.Array) -> jax.Array:
    """`einsum` of a layer's inputs and its outputs' gradient, whose batch is summed over."""
    if _precision.value == "float32":
        return jnp.einsum(axes, x, slope)
    return _each_with_both(axes)(_lowered(x), _lowered(slope))


def rounded(
    multiply: Callable[Concatenate[X, K, P], jax.Array],
) -> Callable[Concatenate[X, K, P], jax.Array]:
    """A product of its first two arguments, with other gradients than a matrix product's.

    In bf16 it is a product of rounded numbers that are float32: the same sums, no faster. JAX has
    no gradients of a convolution that reads bfloat16 and gives float32.
    """

    @wraps(multiply)
    def computed(x: X, kernel: K, /, *args: P.args, **kwargs: P.kwargs) -> jax.Array:
        if _precision.value == "float32":
            return multiply(x, kernel, *args, **kwargs)
        x, kernel = jax.tree.map(_round_float, (x, kernel))
        return _round_gradient(multiply(x, kernel, *args, **kwargs))

    return computed


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Inputs (..., I) times a kernel [I, O] in bf16; it has no forward-mode derivative."""
    return _forward(x, kernel)[0]


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    read = _lowered(x), _lowered(kernel)
    return _summed("...i,io->...o", *read), read


def _backward(read: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = read
    slope = _lowered(slope)
    of_kernel = _each_with_both("...i,...o->io")(x, slope)
    return _summed("...o,io->...i", slope, kernel), of_kernel


_product.defvjp(_forward, _backward)


def _each_with_both(axes: str, depth: int = 0) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`_summed` of bfloat16 that under `vmap` is given both operands for each.

    Inputs that several kernels share are repeated: as they are, XLA compiles a product with the
    kernels' slopes that a CPU cannot carry out (jaxlib 0.10.2).
    """

    @custom_vmap
    def multiply(x: jax.Array, y: jax.Array) -> jax.Array:
        return _summed(axes, x, y)

    @multiply.def_vmap
    def _(size: int, batched: list[bool], x: jax.Array, y: jax.Array) -> tuple[jax.Array, bool]:
        both = [
            operand if own else jnp.broadcast_to(operand, (size, *operand.shape))
            for operand, own in zip((x, y), batched, strict=True)
        ]
        letter, (read, out) = ascii_uppercase[depth], axes.split("->")
        first, second = read.split(",")
        more = f"{letter}{first},{letter}{second}->{letter}{out}"
        return _each_with_both(more, depth + 1)(*both), True

    return multiply


def _lowered(x: jax.Array) -> jax.Array:
    """As bfloat16. XLA may undo a conversion alone where it multiplies in float32 after all."""
    return lax.reduce_precision(x, *BF16_BITS).astype(jnp.bfloat16)


def _summed(axes: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """`jnp.einsum` of bfloat16 that adds in float32."""
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32)


def _round_float(leaf: jax.Array) -> jax.Array:
    return _round(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


@jax.custom_vjp
def _round(x: jax.Array) -> jax.Array:
    """Numbers of bfloat16 as float32; the gradient passes as it is."""
    return lax.reduce_precision(x, *BF16_BITS)


_round.defvjp(lambda x: (_round(x), None), lambda _, slope: (slope,))


@jax.custom_vjp
def _round_gradient(y: jax.Array) -> jax.Array:
    """What is given; its gradient is rounded to numbers of bfloat16."""
    return y


_round_gradient.defvjp(
    lambda y: (y, None), lambda _, slope: (lax.reduce_precision(slope, *BF16_BITS),)
)
