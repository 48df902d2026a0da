"""Bodies of convolutions on games' pictures, against flax's and XLA's own operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from mst_jax.networks import Architecture, Layer, make_impala, make_nature
from mst_jax.networks.atari import max_pool

RELU = Architecture(0, 0, "relu", norm=False)
KEY, rng = jax.random.key(0), np.random.default_rng(0)


def pooled(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


@pytest.mark.parametrize("sides", [(1, 1), (4, 7), (11, 6)])
def test_pooling_is_that_of_xla(sides):
    x = jnp.asarray(rng.normal(size=(2, *sides, 3)), jnp.float32)
    np.testing.assert_array_equal(max_pool(x), pooled(x))
    np.testing.assert_array_equal(max_pool(x[0]), pooled(x)[0])
    weight = jnp.asarray(rng.normal(size=pooled(x).shape), jnp.float32)
    gradient = lambda fn: jax.grad(lambda x: jnp.sum(fn(x) * weight))(x)  # noqa: E731
    np.testing.assert_allclose(gradient(max_pool), gradient(pooled), atol=1e-6)


def test_equal_pixels_share_a_gradient():
    flat = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_allclose(flat.sum(), 1)
    assert (flat >= 0).all()


def conv(x, layer, stride=1):
    """As flax has it, with padding."""
    size, features = layer["kernel"].shape[0], layer["kernel"].shape[-1]
    return nn.Conv(features, (size, size), stride, padding="SAME").apply({"params": layer}, x)


def features_of_nature(params, pictures):
    x = pictures / 255.0
    for name, stride in (("layer_1", 4), ("layer_2", 2), ("layer_3", 1)):
        x = nn.relu(conv(x, params[name], stride))
    return x.reshape(len(x), -1)


def features_of_impala(params, pictures):
    x = pictures / 255.0
    for stack in ("stack_1", "stack_2"):
        x = pooled(conv(x, params[stack]["embed"]))
        for block in ("block_1", "block_2"):
            own = params[stack][block]
            x = x + conv(nn.relu(conv(nn.relu(x), own["expand"])), own["project"])
    return nn.relu(x).reshape(len(x), -1)


SHAPE = (13, 20, 4)
BODIES = {
    "nature": (
        make_nature(SHAPE, [Layer(4, 8, 4), Layer(6, 4, 2), Layer(5, 3, 1)], RELU),
        features_of_nature,
    ),
    "impala": (make_impala(SHAPE, (3, 5), 2, RELU), features_of_impala),
}


@pytest.mark.parametrize("body", BODIES)
def test_features_and_gradients_are_those_of_flax(body):
    encoder, of_flax = BODIES[body]
    params = jax.jit(encoder.init)(KEY)
    pictures = jnp.asarray(rng.integers(0, 256, (2, *SHAPE), np.uint8))
    weight = jnp.asarray(rng.normal(size=(2, encoder.size)), jnp.float32)

    @jax.jit
    def both(params):
        loss = lambda apply: lambda p: jnp.sum(jnp.sin(apply(p, pictures)) * weight)  # noqa: E731
        own, theirs = encoder.apply, of_flax
        return [(fn(params, pictures), jax.grad(loss(fn))(params)) for fn in (own, theirs)]

    own, theirs = both(params)
    assert own[0].shape == (2, encoder.size)
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
    assert {f"{path}" for path in encoder.positions} == {
        "/".join(key.key for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel"
    }


def test_first_kernels_are_as_published():
    """Xavier-uniform but in residual blocks, where they are LeCun-normal; no biases."""
    params = jax.device_get(make_impala((84, 84, 4), (32,), 1, RELU).init(KEY)["stack_1"])
    bound = (6 / (9 * 4 + 9 * 32)) ** 0.5
    first = params["embed"]["kernel"]
    assert 0.98 * bound < np.abs(first).max() <= bound
    for name in ("expand", "project"):
        np.testing.assert_allclose(params["block_1"][name]["kernel"].var(), 1 / (9 * 32), rtol=0.05)
        assert not params["block_1"][name]["bias"].any()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: make_nature((10, 5, 1), [Layer(2, 8, 4), Layer(2, 4, 2)], RELU), "convolution 2"),
        (lambda: make_nature((3, 9, 1), [Layer(2, 8, 1)], RELU), "convolution 1"),
        (lambda: make_impala((10, 5, 1), (2, 2, 2), 2, RELU), "stack 3"),
        (lambda: make_impala((2, 2, 1), (2,), 1, RELU), "stack 1"),
    ],
)
def test_a_picture_that_a_kernel_reaches_beyond_is_refused(make, what):
    with pytest.raises(ValueError, match=f"are too small for this encoder: the kernel of {what}"):
        make()


def test_every_weight_of_a_kernel_that_is_let_through_sees_a_pixel():
    for side in range(1, 12):
        for size, stride in ((8, 4), (4, 2), (3, 1), (3, 2), (5, 1)):
            try:
                encoder = make_nature((side, side, 1), [Layer(1, size, stride)], RELU)
            except ValueError:
                blind = True
            else:
                blind = False
            ((before, _),) = lax.padtype_to_pads((side,), (size,), (stride,), "SAME")
            first = np.arange(0, side, stride) - before  # pixel of each place's first weight
            seen = first[:, None] + np.arange(size)
            assert blind == (not ((seen >= 0) & (seen < side)).any(axis=0).all())
            if not blind:
                assert encoder.size == len(first) ** 2
