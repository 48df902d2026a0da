"""The linear layer of a kernel in compact storage, with its own backward pass.

Rows of the transposed inputs are gathered for one tile of outputs at a time, so that what is
gathered stays in a core's cache; on accelerators all tiles are one batched product.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import DotGeneralT

from mst_jax.networks.products import dot_general, rounded
from mst_jax.topology.compact import Shared

Form = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # (inputs, values, index) -> outputs


class Linear(nn.Dense):
    """`nn.Dense` whose kernel may be in compact storage."""

    dot_general: DotGeneralT | None = dot_general

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (..., inputs) to (..., features)."""
        kernel = self.get_variable("params", "kernel")
        if not isinstance(kernel, Shared):
            return super().__call__(inputs)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        return shared_dense(inputs, kernel) + bias


@rounded
def shared_dense(x: jax.Array, kernel: Shared) -> jax.Array:
    """The product of inputs and a kernel in compact storage.

    Its gradients are those of the product with the dense kernel, at the active weights.

    Args:
        x: (..., inputs).
        kernel: of one seed; `Shared` says what its probe adds to the gradients.

    Returns:
        (..., outputs), of the dtype of inputs and values.
    """
    rows = jnp.asarray(x).reshape(-1, x.shape[-1])
    form = form_for(jax.default_backend(), len(rows))
    y = form(rows, kernel.values, kernel.index)
    if isinstance(kernel.probe, Shared):
        y += form(rows, kernel.probe.values, kernel.probe.index)
    elif kernel.probe is not None:
        y += scored(rows, kernel.probe, kernel.values.shape[-2])
    return y.reshape(*x.shape[:-1], -1)


def form_for(backend: str, rows: int) -> Form:
    """How the product is computed: a tile at a time on a CPU, where several rows are gathered.

    Args:
        backend: of JAX, "cpu", "gpu" or "tpu".
        rows: of the inputs; one when an agent acts.
    """
    return by_tile if backend == "cpu" and rows > 1 else batched


def batched(x: jax.Array, values: jax.Array, index: jax.Array) -> jax.Array:
    """The product (N, outputs) of (N, inputs) in one piece; it copies every input of every tile."""
    gathered = x.T.at[index].get(mode="promise_in_bounds")  # (tiles, K, N)
    return jnp.einsum("tck,tkn->tcn", values, gathered).reshape(-1, len(x)).T


@jax.custom_vjp
def by_tile(x: jax.Array, values: jax.Array, index: jax.Array) -> jax.Array:
    """`batched` a tile at a time."""
    return _forward(x.T, values, index)


def _forward(xt: jax.Array, values: jax.Array, index: jax.Array) -> jax.Array:
    y = jax.lax.map(lambda tile: tile[0] @ _rows(xt, tile[1]), (values, index))
    return y.reshape(-1, xt.shape[1]).T


def _by_tile_fwd(x: jax.Array, values: jax.Array, index: jax.Array) -> tuple[jax.Array, tuple]:
    xt = x.T
    return _forward(xt, values, index), (xt, values, index)


def _by_tile_bwd(saved: tuple, slope: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    """Two loops, so that a gradient nobody asks for is not computed."""
    xt, values, index = saved
    slopes = _tiles(slope, values.shape[-2])

    def add(dx: jax.Array, tile: tuple) -> tuple[jax.Array, None]:
        own, at, dy = tile
        return dx.at[at].add(own.T @ dy, mode="promise_in_bounds", unique_indices=True), None

    dx, _ = jax.lax.scan(add, jnp.zeros_like(xt), (values, index, slopes))
    dvalues = jax.lax.map(lambda tile: tile[1] @ _rows(xt, tile[0]).T, (index, slopes))
    return dx.T, dvalues, None


by_tile.defvjp(_by_tile_fwd, _by_tile_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def scored(x: jax.Array, probe: jax.Array, columns: int) -> jax.Array:
    """Zeros (N, outputs); the gradient by the probe is the mean |dL/dw| over every tile's columns.

    One tile after the other, so that the dense gradient is never whole.

    Args:
        x: (N, inputs).
        probe: zeros (inputs, tiles).
        columns: outputs of a tile.
    """
    return jnp.zeros((len(x), probe.shape[1] * columns), x.dtype)


def _scored_fwd(x: jax.Array, probe: jax.Array, columns: int) -> tuple[jax.Array, jax.Array]:
    return scored(x, probe, columns), x


def _scored_bwd(columns: int, x: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    xt = x.T

    def of_tile(dy: jax.Array) -> jax.Array:
        return jnp.mean(jnp.abs(xt @ dy.T), axis=1)

    return jnp.zeros_like(x), jax.lax.map(of_tile, _tiles(slope, columns)).T


scored.defvjp(_scored_fwd, _scored_bwd)


def _tiles(slope: jax.Array, columns: int) -> jax.Array:
    """The gradient of the outputs (N, outputs) as (tiles, columns, N)."""
    return slope.T.reshape(-1, columns, len(slope))


def _rows(xt: jax.Array, at: jax.Array) -> jax.Array:
    return xt.at[at].get(mode="promise_in_bounds")
