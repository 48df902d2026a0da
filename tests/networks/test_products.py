"""Products of layers with operands in bfloat16, by hand and against rounded float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax.networks import in_precision, products
from mst_jax.networks.convolution import Convolution
from mst_jax.networks.noisy import Noisy
from mst_jax.networks.shared import Linear, shared_dense
from mst_jax.topology.compact import Shared

STEP = 2.0**-7  # between 1 and 2, bfloat16 knows multiples of it


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def test_operands_are_rounded_and_sums_are_not():
    """257 is no bfloat16; 1 + STEP / 4 rounds to 1, 3 + STEP to 3 (its neighbours are 2 STEP away
    and the tie goes to the even one).
    """
    x, kernel = jnp.array([[256.0, 1 + STEP / 4]]), jnp.array([[1.0], [1.0]])
    slope = jnp.array([[3 + STEP]])

    def product(x, kernel):
        return jax.vjp(products.product, x, kernel)[1](slope), products.product(x, kernel)

    (of_x, of_kernel), y = jax.jit(in_precision("bf16", product))(x, kernel)
    assert (y.dtype, of_x.dtype, of_kernel.dtype) == (jnp.float32,) * 3
    np.testing.assert_array_equal(y, [[257.0]])
    np.testing.assert_array_equal(of_x, [[3.0, 3.0]])
    np.testing.assert_array_equal(of_kernel, [[768.0], [3.0]])
    (of_x, of_kernel), y = jax.jit(in_precision("float32", product))(x, kernel)
    np.testing.assert_array_equal(y, [[257 + STEP / 4]])
    np.testing.assert_array_equal(of_x, [[3 + STEP, 3 + STEP]])


def applied(layer, x, params, slope):
    """What a layer gives, and the gradients by its inputs and parameters."""
    y, back = jax.vjp(layer, x, params)
    return y, *back(slope)


def linear(x, params):
    return Linear(params["kernel"].shape[-1]).apply({"params": params}, x)


def noisy(x, params):
    noise = jnp.ones(x.shape[-1]), jnp.ones(params["bias"].shape[-1])
    return Noisy(params["bias"].shape[-1], 0.5).apply({"params": params}, x, noise)


def noiseless(x, params):
    return Noisy(params["bias"].shape[-1], 0.5).apply({"params": params}, x, None)


def convolution(x, params):
    return Convolution(params["kernel"].shape[-1], 2).apply({"params": params}, x)


def compact(x, params):
    """With the probe of scores by which inputs grow, whose gradient is compared too."""
    kernel = Shared(params["kernel"], INDEX, 6, params["probe"])
    return shared_dense(x, kernel) + params["bias"]


INDEX = jnp.array([[0, 2, 5], [1, 4, 3]])
LAYERS = {
    "linear": (linear, (5, 6), (6, 4)),
    "noisy": (noisy, (5, 6), (2, 6, 4)),
    "noiseless": (noiseless, (5, 6), (2, 6, 4)),
    "convolution": (convolution, (3, 6, 6, 2), (3, 3, 2, 4)),
    "compact": (compact, (5, 6), (2, 2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_and_its_gradients_are_those_of_rounded_numbers(name):
    layer, inputs, kernel = LAYERS[name]
    bias = (2, 4) if layer in (noisy, noiseless) else (4,)
    x, params = normal(0, *inputs), {"kernel": normal(1, *kernel), "bias": normal(2, *bias)}
    if layer is compact:
        params["probe"] = jnp.zeros((6, 2))
    exact = layer(x, params)
    slope = normal(3, *exact.shape)
    found = jax.jit(in_precision("bf16", applied), static_argnums=0)(layer, x, params, slope)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    assert np.abs(found[0] - exact).max() > 1e-4, "nothing was rounded"
    near = rounded(x), {**params, "kernel": rounded(params["kernel"])}
    y, of_x, of_params = applied(layer, *near, rounded(slope))
    of_params["bias"] = applied(layer, x, params, slope)[2]["bias"]  # is not multiplied
    for own, wanted in zip(
        jax.tree.leaves(found), jax.tree.leaves((y, of_x, of_params)), strict=True
    ):
        np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shared", ["nothing", "inputs", "kernel"])
@pytest.mark.parametrize("name", ["linear", "noisy"])
def test_kernels_under_vmap_are_each_as_alone(name, shared):
    """Executed with all gradients, for two seeds with three kernels each, such as an ensemble's."""
    layer, inputs, kernel = LAYERS[name]
    bias = (*kernel[:-2], kernel[-1])
    lead = (2,) if shared == "inputs" else (2, 3)
    x, slope = normal(0, *lead, *inputs), normal(3, 2, 3, *inputs[:-1], kernel[-1])
    lead = (2,) if shared == "kernel" else (2, 3)
    params = {"kernel": normal(1, *lead, *kernel), "bias": normal(2, *lead, *bias)}

    def of_one(x, params, slope):
        return in_precision("bf16", applied)(layer, x, params, slope)

    axes = (None if shared == "inputs" else 0, None if shared == "kernel" else 0, 0)
    found = jax.jit(jax.vmap(jax.vmap(of_one, axes)))(x, params, slope)
    own_inputs = x[1] if shared == "inputs" else x[1, 2]
    own_params = jax.tree.map(lambda leaf: leaf[1] if shared == "kernel" else leaf[1, 2], params)
    alone = of_one(own_inputs, own_params, slope[1, 2])
    for own, wanted in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
        np.testing.assert_allclose(own[1, 2], wanted, rtol=1e-5, atol=1e-5)


def test_a_product_takes_any_numbers_and_kernels_of_two_axes():
    pixels, kernel = jnp.array([[255, 3]], jnp.uint8), jnp.ones((2, 4))
    np.testing.assert_array_equal(in_precision("bf16", products.product)(pixels, kernel), 258.0)
    for precision in products.PRECISIONS:
        with pytest.raises(ValueError, match=r"a kernel is \[inputs, outputs\]; .* \(3, 2, 4\)"):
            in_precision(precision, products.product)(pixels, jnp.ones((3, 2, 4)))


def test_a_jitted_function_is_traced_anew_in_another_precision():
    product = jax.jit(products.product)
    x, kernel = normal(0, 5, 6), normal(1, 6, 4)
    before = product(x, kernel)
    assert (in_precision("bf16", product)(x, kernel) != before).any()
    np.testing.assert_array_equal(product(x, kernel), before)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="precision='fp8' is none of float32, bf16"):
        in_precision("fp8", products.product)
