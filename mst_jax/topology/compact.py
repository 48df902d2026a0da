"""Compact storage: of a kernel whose neurons share their inputs, the active weights alone.

Under `shared_fan_in(C)` every C neighbouring outputs read the same K of the inputs. Where masked
storage keeps the whole kernel ``[I, O]`` and a mask, compact storage keeps the values
``[O / C, C, K]`` and which inputs they belong to, ``[O / C, K]``. In a parameter tree a `Shared`
stands in place of the kernel, in a mask tree a `SharedMask`. Optimizers see the values only, so
gradients, moments and targets shrink with them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("values", "index", "probe"),
    meta_fields=("inputs",),
)
@dataclass(frozen=True, eq=False)
class Shared:
    """A kernel in compact storage; any leading axes (seeds).

    Attributes:
        values: float ``[..., O / C, C, K]``, the active weights of every C outputs.
        index: int32 ``[..., O / C, K]``, their inputs; no input twice in a row, in any order.
        inputs: I.
        probe: adds nothing to what the layer gives, but has a gradient of its own: zeros
            ``[I, O / C]`` get the mean ``|dL/dw|`` over the C weights of every input and tile,
            active or not; a `Shared` of zeros gets dL/dw at its own index. None: no probe.
    """

    values: jax.Array
    index: jax.Array
    inputs: int
    probe: "jax.Array | Shared | None" = None


@partial(
    jax.tree_util.register_dataclass, data_fields=("index",), meta_fields=("inputs", "columns")
)
@dataclass(frozen=True, eq=False)
class SharedMask:
    """What stands for the mask of a kernel in compact storage: all of its values are active.

    Attributes:
        index: int32 ``[..., O / C, K]``, as in `Shared`.
        inputs: I.
        columns: C.
    """

    index: jax.Array
    inputs: int
    columns: int

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the values."""
        *tiles, fan_in = self.index.shape
        return (*tiles, self.columns, fan_in)


def is_shared(node: PyTree) -> bool:
    """True for a kernel in compact storage."""
    return isinstance(node, Shared)


def is_shared_mask(node: PyTree) -> bool:
    """True for what stands for its mask."""
    return isinstance(node, SharedMask)


def values_of(params: PyTree) -> PyTree:
    """What is trained of parameters: of a kernel in compact storage its values."""
    return jax.tree.map(lambda p: p.values if is_shared(p) else p, params, is_leaf=is_shared)


def with_values(params: PyTree, values: PyTree) -> PyTree:
    """The parameters with other values; the inverse of `values_of`."""

    def one(param: PyTree, value: jax.Array) -> PyTree:
        return replace(param, values=value) if is_shared(param) else value

    return jax.tree.map(one, params, values, is_leaf=is_shared)


def value_and_grad(
    loss: Callable[..., Any], argnums: int = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """``jax.value_and_grad`` by parameters some of which may be in compact storage.

    Args:
        loss: function of parameters and other arguments.
        argnums: place of the parameters among them.
        has_aux: whether it returns ``(loss, more)``.

    Returns:
        A function with its arguments that returns its value and the gradient, shaped as
        `values_of` of the parameters: the dense gradient of a kernel in masked storage, that of the
        active weights of one in compact storage.
    """

    def with_gradient(*args: Any, **named: Any) -> Any:
        params = args[argnums]

        def of_values(values: PyTree) -> Any:
            own = with_values(params, values)
            return loss(*args[:argnums], own, *args[argnums + 1 :], **named)

        return jax.value_and_grad(of_values, has_aux=has_aux)(values_of(params))

    return with_gradient


def densified(tree: PyTree) -> PyTree:
    """Parameters or masks as in masked storage: whole kernels with zeros, boolean masks.

    Args:
        tree: parameters or mask tree, any leading axes; other leaves stay as they are.

    Returns:
        The tree with float ``[..., I, O]`` in place of every `Shared`, and bool ``[..., I, O]`` in
        place of every `SharedMask`.
    """

    def one(node: PyTree) -> PyTree:
        if is_shared(node):
            return _dense(node)
        return _mask(node) if is_shared_mask(node) else node

    return jax.tree.map(one, tree, is_leaf=lambda node: is_shared(node) or is_shared_mask(node))


def compacted(mask: SharedMask, kernel: jax.Array) -> Shared:
    """A kernel ``[I, O]`` in compact storage: of its weights those that are active."""
    tiles = kernel.reshape(mask.inputs, -1, mask.columns).transpose(1, 2, 0)
    values = jnp.take_along_axis(tiles, mask.index[:, None, :], axis=2)
    # A copy: a state that is donated must not hold one buffer twice.
    return Shared(values, mask.index.copy(), mask.inputs)


def shared_mask_of(mask: jax.Array, columns: int, fan_in: int) -> SharedMask:
    """A boolean mask in compact storage, its inputs in order.

    Args:
        mask: bool ``[I, O]``, alike in every ``columns`` neighbouring outputs.
        columns: C.
        fan_in: K, how many inputs every tile has.
    """
    units = mask[:, ::columns].T
    index = jax.vmap(lambda own: jnp.flatnonzero(own, size=fan_in))(units)
    return SharedMask(index.astype(jnp.int32), mask.shape[0], columns)


def active_units(index: jax.Array, inputs: int) -> jax.Array:
    """Which inputs each tile has: index ``[O / C, K]`` to bool ``[I, O / C]``."""
    return jax.vmap(lambda own: jnp.zeros(inputs, bool).at[own].set(True))(index).T


def survivors(param: Shared, mask: SharedMask) -> jax.Array:
    """Which values belong to the same weight under another index: bool like the values.

    What is grown takes the place of what is dropped, so that nothing else moves.
    """
    same = (param.index == mask.index)[..., None, :]
    return jnp.broadcast_to(same, param.values.shape)


def _dense(kernel: Shared) -> jax.Array:
    *lead, tiles, columns, fan_in = kernel.values.shape

    def one(values: jax.Array, index: jax.Array) -> jax.Array:
        return jnp.zeros((kernel.inputs, columns), values.dtype).at[index].set(values.T)

    flat = kernel.values.reshape(-1, columns, fan_in), kernel.index.reshape(-1, fan_in)
    whole = jax.vmap(one)(*flat).reshape(-1, tiles, kernel.inputs, columns)
    return jnp.swapaxes(whole, 1, 2).reshape(*lead, kernel.inputs, tiles * columns)


def _mask(mask: SharedMask) -> jax.Array:
    *lead, tiles, fan_in = mask.index.shape
    rows = mask.index.reshape(math.prod(lead), tiles, fan_in)
    units = jax.vmap(lambda own: active_units(own, mask.inputs))(rows)
    return jnp.repeat(units, mask.columns, axis=-1).reshape(*lead, mask.inputs, -1)
