"""MR.Q and MR.SAC from pictures: sizes, shifts, wrong tasks, and runs that resume."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import CATCH, advance, resumed_exactly, small_config, small_settings, start_run

from mst_jax.agents import Sizes, default_config, make_agent
from mst_jax.agents.mr.config import MRQConfig
from mst_jax.agents.mr.mrq import build_mrq
from mst_jax.envs import Continuous, Discrete, Observation
from mst_jax.envs.film import opengl
from mst_jax.networks.pixel import Convolutions
from mst_jax.presets import preset_overrides
from mst_jax.program.evaluation import make_evaluator
from mst_jax.recipes import make_config, override

ATARI = Observation((84, 84, 4), "uint8", history=4, fill="zeros")
DMC = Observation((84, 84, 9), "uint8", history=3)
SMALL = {"pictures.depth": 2, "pictures.strided": 1, "pictures.channels": 4, "pictures.shift": 1}


def built(observation, action, **changes):
    config = override(MRQConfig(), changes)
    return build_mrq(config, Sizes(observation, action, 500), 100_000)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("observation", "action", "encoder", "actor"),
    [
        (ATARI, Discrete(4), 2_049_090, 527_364),
        (ATARI, Discrete(18), 2_052_674, 534_546),
        (DMC, Continuous(1), 2_049_762, 525_825),
        (DMC, Continuous(38), 2_059_234, 544_806),
    ],
)
def test_published_parameters(observation, action, encoder, actor):
    state = jax.eval_shape(built(observation, action).core.init, jax.random.key(0))
    counts = {name: count(params) for name, params in state.params.items()}
    assert counts == {"encoder": encoder, "actor": actor, "critic": 1_576_962}


def test_places_of_the_convolutions():
    modules = built(DMC, Continuous(1)).agent().modules
    positions = {f"zs/layer_{n}/kernel": side**2 for n, side in enumerate((41, 20, 9, 7), start=1)}
    assert modules["encoder"].positions == positions
    assert modules["critic"].positions is None


@pytest.mark.parametrize("strided", [0, 1, 2])
def test_same_padding(strided):
    """Against XLA's own, on a picture of odd and of even sides."""
    body, picture = Convolutions(3, 2, strided, "same"), jnp.arange(7 * 10 * 2) % 251
    picture = picture.reshape(7, 10, 2).astype(jnp.uint8)
    mrq = built(
        Observation((7, 10, 2), "uint8"),
        Discrete(3),
        **{
            "pictures.channels": 3,
            "pictures.depth": 2,
            "pictures.strided": strided,
            "pictures.padding": "same",
        },
    )
    params = mrq.core.encoder.init(jax.random.key(1))["zs"]
    x = picture.astype(jnp.float32)[None] / 255 - 0.5
    for number, stride in enumerate(body.strides(), start=1):
        layer = params[f"layer_{number}"]
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (stride,) * 2, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.elu(x + layer["bias"])
        assert body.sides((7, 10, 2), "pictures")[number - 1] == x.shape[1:3]
    expected = x.reshape(-1) @ params["layer_3"]["kernel"] + params["layer_3"]["bias"]
    expected = jax.nn.elu((expected - expected.mean()) / jnp.sqrt(expected.var() + 1e-5))
    np.testing.assert_allclose(mrq.core.encoder.zs({"zs": params}, picture), expected, atol=2e-5)


def test_every_picture_of_a_batch_is_moved_on_its_own():
    """Each by up to four pixels, and all channels alike; none where nothing shall move."""
    core = built(DMC, Continuous(1)).core
    ramp = jnp.broadcast_to(jnp.arange(84, dtype=jnp.uint8)[:, None], (84, 84))
    pictures = jnp.broadcast_to(ramp[..., None], (5, 6, 84, 84, 9))
    moved = np.asarray(core.moved(jax.random.key(0), pictures), int)
    rows = moved[:, :, 42, 0, 0] - 42
    assert set(rows.ravel()) <= set(range(-4, 5)) and len(set(rows.ravel())) > 4
    assert (moved == moved[..., :1, :1]).all()
    still = built(DMC, Continuous(1), **{"pictures.shift": 0}).core
    assert still.moved(jax.random.key(0), pictures) is pictures


@pytest.mark.parametrize(
    ("agent", "observation", "action", "message"),
    [
        ("mrq", Observation((12, 12, 3), "uint8"), Continuous(1), "12x12 are too small for pict"),
        ("mrsac", Observation((10, 5, 1), "uint8"), Continuous(1), "10x5 are too small for pict"),
        ("mrq", Observation((12,), "uint8"), Continuous(1), "takes pictures, uint8"),
        ("mrq", Observation((12, 12, 3)), Continuous(1), "flat observations of float32"),
        ("mrsac", DMC, Discrete(3), "actions are continuous, and the task takes one of 3"),
    ],
)
def test_what_does_not_fit_is_refused(agent, observation, action, message):
    with pytest.raises(ValueError, match=message):
        make_agent(agent, default_config(agent), Sizes(observation, action, 500), 100_000)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("pictures.padding", "sam", "did you mean"),
        ("pictures.strided", 5, "must be in 0 to pictures.depth=4"),
        ("pictures.shift", -1, "must not be negative"),
        ("discrete.epsilon", 2.0, "must be in"),
        ("discrete.temperature", 0.0, "must be positive"),
    ],
)
def test_impossible_settings(setting, value, message):
    with pytest.raises(ValueError, match=message):
        override(MRQConfig(), {setting: value}).validate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "changes", "looks"),  # a host environment's loop looks at every step
    [
        ("probe:picture_motion", {}, 80),
        ("probe:catch", {}, 80),
        (
            "dmc_pixels:cartpole-swingup",
            {"picture_size": 32, "quality": "plain", "action_repeat": 4},
            2_000,
        ),
        ("atari:Breakout", {"protocol": "sticky"}, 2_000),  # short games
    ],
)
def test_a_run_on_pictures_resumes_exactly(task, changes, looks, tmp_path, monkeypatch):
    suite = task.partition(":")[0]
    if suite == "atari":
        pytest.importorskip("ale_py")
    if suite == "dmc_pixels":
        try:
            opengl.require_renderer()
        except ValueError as error:
            pytest.skip(str(error))
    body = SMALL | ({"pictures.padding": "same"} if suite == "probe" else {"pictures.strided": 2})
    settings = small_settings(
        agent="mrq",
        task=task,
        config=override(small_config("mst", "mrq"), body),
        steps=120,
        eval_every=60,
        eval_episodes=1,
        log_every=20,
        checkpoint_every=40,
        diagnose_every=60,
        **changes,
    )
    resumed_exactly(settings, tmp_path, monkeypatch, looks)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dense", "mst"])
def test_it_learns_to_catch(recipe):
    """Three seeds, as each is judged at one of two moments: policies still waver.

    Without learning a ball is caught by chance, and the return is about -0.6.
    """
    small = preset_overrides("mrq", "small", "probe:catch")
    # Shortcuts make the unrolled predictions large at first, which costs some 2,000 steps.
    config = override(make_config("mrq", recipe, base=small), {"encoder.residual": "none"})
    seeds, judged = [0, 1, 2], []
    driver, agent, run = start_run(CATCH, config, seeds, 1, total_steps=5_000, agent="mrq")
    for steps in (3_999, 1_000):
        run = advance(driver, run, steps)
        judged.append(make_evaluator(agent, CATCH, seeds, 50)(run.agent, 0).returns.mean(axis=1))
    best = np.max(judged, axis=0)
    assert best.mean() > 0.8
    assert (best > 0.5).all(), "three balls of four"
