import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax import networks
from mst_jax.networks import Architecture, EncoderSizes
from mst_jax.networks.mlp import MLP
from mst_jax.networks.orthogonal import orthogonal

STOCK = Architecture(512, 2, "elu")
TYPES = [
    (activation, norm, residual)
    for activation, (norm, residual) in itertools.product(
        ("relu", "elu"), ((False, "none"), (True, "none"), (True, "pre"))
    )
]


def count(init):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))))


@pytest.mark.parametrize(
    ("observation", "action", "expected"),
    [(223, 38, (1_865_538, 1_576_962, 544_806)), (67, 21, (1_781_314, 1_576_962, 536_085))],
    ids=["dog", "humanoid"],
)
def test_parameter_counts_of_the_published_sizes(observation, action, expected):
    encoder = networks.make_encoder(observation, action, EncoderSizes(), STOCK)
    critic = networks.make_critic(512, Architecture(512, 3, "elu"))
    actor = networks.make_actor(512, action, Architecture(512, 2, "relu"))
    assert tuple(count(n.init) for n in (encoder, critic, actor)) == expected


@pytest.mark.parametrize(("hidden", "millions"), [(256, 0.53), (1024, 5.25), (2048, 18.9)])
def test_critic_counts_when_only_the_hidden_width_scales(hidden, millions):
    critic = networks.make_critic(512, Architecture(hidden, 3, "elu"))
    assert count(critic.init) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(("activation", "norm", "residual"), TYPES)
def test_all_six_types_have_equal_parameter_counts(activation, norm, residual):
    arch = Architecture(32, 3, activation, norm, residual)
    plain = Architecture(32, 3, "relu", False, "none")
    sizes = EncoderSizes(16, 8, 12, 5)
    encoders = [networks.make_encoder(7, 3, sizes, a).init for a in (arch, plain)]
    assert count(encoders[0]) == count(encoders[1])
    assert count(networks.make_critic(16, arch).init) == count(networks.make_critic(16, plain).init)


def test_layer_norm_by_hand():
    x = np.array([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0]], np.float32)
    expected = (x[0] - 3.0) / np.sqrt(3.5 + 1e-5)
    np.testing.assert_allclose(networks.layer_norm(x)[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(networks.layer_norm(x)[1], np.zeros(4))


def test_initial_weights_are_xavier_uniform_with_gain_sqrt_2_and_biases_zero():
    actor = networks.make_actor(300, 5, Architecture(200, 2, "relu"))
    params = actor.init(jax.random.key(0))
    for layer, (fan_in, fan_out) in {
        "layer_1": (300, 200),
        "layer_2": (200, 200),
        "layer_3": (200, 5),
    }.items():
        bound = np.sqrt(2.0) * np.sqrt(6.0 / (fan_in + fan_out))
        kernel = np.asarray(params[layer]["kernel"])
        assert np.abs(kernel).max() <= bound
        assert np.abs(kernel).max() > 0.97 * bound
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)
        assert not params[layer]["bias"].any()


def by_hand(params, x, arch, input_shortcut=False, activate_output=False):
    """docs/specs/mst-and-mrq.md §2.3 written out in NumPy, independently of the module."""

    def act(u):
        if arch.norm:
            u = (u - u.mean(-1, keepdims=True)) / np.sqrt(u.var(-1, keepdims=True) + 1e-5)
        return np.maximum(u, 0) if arch.activation == "relu" else np.where(u > 0, u, np.expm1(u))

    layers = [params[f"layer_{i + 1}"] for i in range(len(params))]
    raw, y = x, x  # previous pre-activation (or the input) and previous activated value
    for index, layer in enumerate(layers):
        w, b = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)
        fits = w.shape[0] == w.shape[1] and (index > 0 or input_shortcut)
        u = y @ w + b
        last = index == len(layers) - 1 and not activate_output
        if arch.residual == "pre" and fits:
            u = u + raw
        if arch.residual == "post" and fits:
            u = u + y
        if arch.residual == "branch" and fits:
            new = y + (u if last else act(u))
        else:
            new = u if last else act(u)
        raw, y = u, new
    return y


@pytest.mark.parametrize("residual", ["none", "pre", "post", "branch"])
@pytest.mark.parametrize(("activation", "norm"), [("relu", True), ("elu", True), ("elu", False)])
@pytest.mark.parametrize(("output", "activate_output"), [(6, False), (6, True), (3, False)])
def test_residual_forms_by_hand(residual, activation, norm, output, activate_output):
    arch = Architecture(6, 3, activation, norm, residual)
    module = MLP(output, arch, activate_output=activate_output, input_shortcut=True)
    x = np.random.default_rng(0).normal(size=(5, 6))
    params = module.init(jax.random.key(1), jnp.asarray(x, jnp.float32))["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)
    actual = module.apply({"params": params}, jnp.asarray(x, jnp.float32))
    expected = by_hand(params, x, arch, True, activate_output)
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5)


def test_post_layer_and_pre_layer_residuals_differ():
    x = jax.random.normal(jax.random.key(0), (4, 6))
    outputs = {}
    for residual in networks.RESIDUALS:
        module = networks.network(6, Architecture(6, 2, "elu", True, residual))
        params = module.init(jax.random.key(1), x)
        outputs[residual] = np.asarray(module.apply(params, x))
    for a, b in itertools.combinations(networks.RESIDUALS, 2):
        assert np.abs(outputs[a] - outputs[b]).max() > 1e-3, (a, b)


def test_encoder_head_splits_into_termination_latent_and_reward():
    sizes = EncoderSizes(zs=4, za=3, zsa=6, bins=5)
    encoder = networks.make_encoder(2, 1, sizes, Architecture(8, 2, "elu"))
    params = encoder.init(jax.random.key(0))
    zsa = jnp.ones((7, 6))
    prediction = encoder.predict(params, zsa)
    flat = zsa @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(prediction.terminal, flat[:, 0], rtol=1e-6)
    np.testing.assert_allclose(prediction.next_zs, flat[:, 1:5], rtol=1e-6)
    np.testing.assert_allclose(prediction.reward_logits, flat[:, 5:], rtol=1e-6)


def test_twin_heads_are_independent():
    critic = networks.make_critic(6, Architecture(8, 3, "elu"))
    params = critic.init(jax.random.key(0))
    for q1, q2 in zip(*(jax.tree.leaves(params[q]) for q in ("q1", "q2")), strict=True):
        assert q1.ndim == 1 or (q1 != q2).all()
    zsa = jax.random.normal(jax.random.key(1), (3, 6))
    changed = critic.apply({**params, "q2": jax.tree.map(jnp.zeros_like, params["q2"])}, zsa)
    np.testing.assert_array_equal(changed[:, 0], critic.apply(params, zsa)[:, 0])
    np.testing.assert_array_equal(changed[:, 1], np.zeros(3))


def test_the_slope_of_leaky_relu_is_a_hundredth_at_zero_too():
    """A layer that sees nothing is at zero: there the reference program has 0.01, and jax 1."""
    slope = jax.vmap(jax.grad(networks.ACTIVATIONS["leaky_relu"]))
    np.testing.assert_allclose(slope(jnp.array([-2.0, 0.0, 2.0])), [0.01, 0.01, 1.0])


def test_orthogonal_kernels_of_several_seeds_are_drawn_in_turn():
    """Each is what it is alone, and no decomposition is of a batch."""
    keys = jax.random.split(jax.random.key(0), 3)
    draw = functools.partial(orthogonal, shape=(2, 3, 4), scale=2.0)
    together, alone = jax.vmap(draw)(keys), [draw(key) for key in keys]
    for kernel, own in zip(together, alone, strict=True):
        np.testing.assert_array_equal(kernel, own)
        columns = own.reshape(-1, 4)
        np.testing.assert_allclose(columns.T @ columns, 4 * np.eye(4), atol=1e-5)
    text = jax.jit(jax.vmap(draw)).lower(keys).as_text()
    batches = re.findall(r'@lapack_\w+qrf?_ffi.*?num_batch_dims = "(\d)"', text)
    assert batches == ["0", "0"], "QR, and its factor as a matrix"
