"""DER's networks: sizes, noise, what diagnostics see of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from der_tiny import ATARI, KEY, tiny

from mst_jax import networks
from mst_jax.agents import DERConfig, Sizes, make_agent
from mst_jax.envs import Discrete
from mst_jax.recipes import make_config, override


@pytest.mark.parametrize(
    ("body", "size", "counts"),
    [
        ("nature", "", (8_270_494, 8_375_146, 8_532_124, 9_003_058)),
        ("nature", "3x1", (24_703_966, 24_808_618, 24_965_596, 25_436_530)),
        ("impala", "", (4_325_326, 4_429_978, 4_586_956, 5_057_890)),
        ("impala", "3x1", (13_031_278, 13_135_930, 13_292_908, 13_763_842)),
    ],
)
def test_published_networks_have_as_many_parameters(body, size, counts):
    for actions, count in zip((4, 6, 9, 18), counts, strict=True):
        config = override(make_config("der", "dense", size), {"encoder.body": body})
        agent = make_agent("der", config, Sizes(ATARI, Discrete(actions)), 100_000)
        params = jax.eval_shape(agent.init, KEY).params
        assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count


def test_noise_of_a_weight_is_the_product_of_its_inputs_and_outputs():
    head = networks.make_action_values(
        5, 3, 1, DERConfig().critic.architecture(), dueling=False, noisy_std=0.5
    )
    generator, params = np.random.default_rng(0), jax.device_get(head.init(KEY))
    assert head.noisy == {"layer_1": (5, 512), "value": (512, 3)}
    noise = {
        name: networks.Noise(*(generator.normal(size=n).astype(np.float32) for n in sizes))
        for name, sizes in head.noisy.items()
    }
    x = generator.normal(size=(4, 5)).astype(np.float32)
    root = lambda e: np.sign(e) * np.sqrt(np.abs(e))  # noqa: E731

    def layer(x, name):
        (mean, scale), (bias, bias_scale) = params[name]["kernel"], params[name]["bias"]
        before, after = map(root, noise[name])
        kernel = mean + scale * np.outer(before, after)
        return x @ kernel + bias + bias_scale * after

    wanted = layer(np.maximum(layer(x, "layer_1"), 0), "value")
    np.testing.assert_allclose(head.apply(params, x, noise)[..., 0], wanted, atol=1e-5)
    still = np.maximum(x @ params["layer_1"]["kernel"][0] + params["layer_1"]["bias"][0], 0)
    still = still @ params["value"]["kernel"][0] + params["value"]["bias"][0]
    np.testing.assert_allclose(head.apply(params, x, None)[..., 0], still, atol=1e-5)


def test_first_means_and_scales_of_noisy_layers():
    critic = tiny(noisy_std=0.5).critic
    for layer in jax.device_get(critic.init(KEY)).values():
        bound = layer["kernel"].shape[1] ** -0.5
        for mean, scale in (layer["kernel"], layer["bias"]):
            np.testing.assert_allclose(scale, 0.5 * bound)
            assert 0.8 * bound < np.abs(mean).max() <= bound
            assert mean.min() < 0 < mean.max()


def test_layers_have_noise_of_their_own():
    agent = tiny()
    noise = agent.noise(KEY)
    drawn = [np.asarray(numbers) for one in noise.values() for numbers in one]
    assert len(drawn) == 6
    for number, one in enumerate(drawn):
        for other in drawn[:number]:
            shared = min(len(one), len(other))
            assert (one[:shared] != other[:shared]).all()
    again = agent.noise(jax.random.key(1))
    assert all((again[name].inputs != noise[name].inputs).all() for name in noise)


def test_diagnostics_are_of_channels_and_of_what_the_output_layers_read():
    agent = tiny()
    params = jax.eval_shape(agent.init, KEY).params
    pictures = jax.ShapeDtypeStruct((7, 6, 5, 1), jnp.uint8)
    encoder = jax.eval_shape(agent.encoder.activity, params["encoder"], pictures)
    assert {name: x.shape for name, x in encoder.post.items()} == {"active_1": (7 * 30, 4)}
    assert encoder.features.shape == (7, agent.encoder.size) == (7, 120)
    critic = jax.eval_shape(agent.critic.activity, params["critic"], encoder.features, None)
    assert set(critic.pre) == {"layer_1"}
    assert set(jax.eval_shape(networks.strengths, critic)) == {"layer_1/kernel"}
    assert critic.features.shape == (7, 16)


def test_diagnostics_of_impala_name_every_convolution():
    agent = tiny(**{"encoder.body": "impala", "encoder.kernels": "", "encoder.strides": ""})
    params = jax.eval_shape(agent.init, KEY).params["encoder"]
    pictures = jax.ShapeDtypeStruct((2, 6, 5, 1), jnp.uint8)
    activity = jax.eval_shape(agent.encoder.activity, params, pictures)
    blocks = [f"stack_1/block_{n}" for n in (1, 2)]
    layers = {f"{b}/{layer}" for b in blocks for layer in ("expand", "project")}
    assert set(activity.pre) == {"stack_1/embed", *layers}
    assert set(activity.post) == {"active", *(f"{b}/active" for b in blocks)}
    assert {f"{path}/kernel" for path in activity.pre} == set(agent.encoder.positions)
    assert agent.encoder.positions["stack_1/embed/kernel"] == 30
    assert agent.encoder.positions["stack_1/block_1/expand/kernel"] == 9
