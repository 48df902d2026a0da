"""The linear layer in compact storage against the dense one: values, gradients and probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mst_jax.networks.shared import Linear, batched, by_tile, form_for, shared_dense
from mst_jax.topology import Shared, densified

# rows, inputs, tiles, columns, inputs of a tile
SHAPES = [(5, 7, 3, 2, 4), (2, 6, 1, 5, 6), (3, 9, 4, 3, 1), (1, 4, 2, 2, 3)]


def example(rows, inputs, tiles, columns, fan_in, dtype):
    """A layer with an index in no order, its inputs, and the gradient of its outputs."""
    rng = np.random.default_rng(inputs)
    index = np.stack([rng.permutation(inputs)[:fan_in] for _ in range(tiles)]).astype(np.int32)
    values = rng.normal(size=(tiles, columns, fan_in)).astype(dtype)
    x = jnp.asarray(rng.normal(size=(rows, inputs)).astype(dtype))
    slope = rng.normal(size=(rows, tiles * columns)).astype(dtype)
    return Shared(jnp.asarray(values), jnp.asarray(index), inputs), x, slope


def by_hand(kernel):
    """The dense kernel, entry by entry."""
    values, index = np.asarray(kernel.values), np.asarray(kernel.index)
    tiles, columns, fan_in = values.shape
    dense = np.zeros((kernel.inputs, tiles * columns), values.dtype)
    for t, c, k in np.ndindex(tiles, columns, fan_in):
        dense[index[t, k], t * columns + c] = values[t, c, k]
    return dense


def at_index(dense, kernel):
    """Entries of a dense gradient in the places of the values."""
    tiles, columns, _ = kernel.values.shape
    whole = dense.reshape(kernel.inputs, tiles, columns)
    return np.stack([whole[own, t].T for t, own in enumerate(np.asarray(kernel.index))])


@pytest.mark.parametrize("form", [by_tile, batched])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_dense_layer(shape, dtype, form):
    with jax.enable_x64(dtype == np.float64):
        kernel, x, slope = example(*shape, dtype)
        y, back = jax.vjp(lambda x, values: form(x, values, kernel.index), x, kernel.values)
        dx, dvalues = back(jnp.asarray(slope))
        assert {y.dtype, dx.dtype, dvalues.dtype} == {np.dtype(dtype)}
        dense = by_hand(kernel)
        close = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12}
        np.testing.assert_array_equal(densified(kernel), dense)
        np.testing.assert_allclose(y, x @ dense, **close)
        np.testing.assert_allclose(dx, slope @ dense.T, **close)
        np.testing.assert_allclose(dvalues, at_index(x.T @ slope, kernel), **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_probes_add_nothing_and_tell_the_dense_gradient(shape):
    kernel, x, slope = example(*shape, np.float32)
    other, _, _ = example(shape[0], shape[1], *shape[2:4], shape[1], np.float32)
    tiles = len(kernel.index)
    zeros = Shared(jnp.zeros_like(other.values), other.index, other.inputs)
    gradient = x.T @ slope

    def told(probe):
        one = Shared(kernel.values, kernel.index, kernel.inputs, probe)
        return jnp.sum(shared_dense(x, one) * slope), shared_dense(x, one)

    (_, y), by_size = jax.value_and_grad(told, has_aux=True)(jnp.zeros((shape[1], tiles)))
    np.testing.assert_array_equal(y, shared_dense(x, kernel))
    sizes = np.abs(gradient).reshape(shape[1], tiles, -1).mean(axis=-1)
    np.testing.assert_allclose(by_size, sizes, rtol=1e-5, atol=1e-6)
    elsewhere = jax.grad(lambda values: told(Shared(values, zeros.index, zeros.inputs))[0])(
        zeros.values
    )
    np.testing.assert_allclose(elsewhere, at_index(gradient, other), rtol=1e-5, atol=1e-6)


def test_any_leading_axes_and_the_form_for_them():
    kernel, _, _ = example(1, 7, 3, 2, 4, np.float32)
    x = np.random.default_rng(0).normal(size=(2, 3, 7)).astype(np.float32)
    whole = shared_dense(x, kernel)
    assert whole.shape == (2, 3, 6)
    np.testing.assert_allclose(shared_dense(x[1, 2], kernel), whole[1, 2], rtol=1e-5, atol=1e-6)
    assert [form_for("cpu", 2), form_for("cpu", 1), form_for("gpu", 2)] == [
        by_tile,
        batched,
        batched,
    ]


def test_a_layer_takes_kernels_of_both_storages():
    kernel, x, _ = example(5, 7, 3, 2, 4, np.float32)
    ours, theirs = Linear(6, name="layer"), nn.Dense(6, name="layer")
    params = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(jax.random.key(0), x))
    np.testing.assert_array_equal(ours.apply(params, x), theirs.apply(params, x))
    bias = jnp.arange(6.0)
    dense = {"params": {"kernel": densified(kernel), "bias": bias}}
    stored = {"params": {"kernel": kernel, "bias": bias}}
    np.testing.assert_allclose(ours.apply(stored, x), theirs.apply(dense, x), rtol=1e-5, atol=1e-6)
