"""MR.Q inside the training program: seeds, masks, conditionals, learning on probes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import POINT, advance, conditionals_of_a_step, small_config, start_run

from mst_jax import envs
from mst_jax.agents import MRQConfig, Sizes, make_agent
from mst_jax.envs.suites import probe
from mst_jax.program.arrays import loop_from_arrays, loop_to_arrays
from mst_jax.program.state import keys_for
from mst_jax.program.step import Phase

mrq_config = partial(small_config, agent="mrq")
start_mrq = partial(start_run, agent="mrq")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"critic__sparsity": 1.0}, "critic.sparsity=1.0"),
        ({"critic__sparsity": 0.0}, "critic.sparsity=0.0"),
        ({"encoder__sparsity": 0.5}, "encoder.regime to static or rigl"),
        ({"actor__regime": "sett"}, "did you mean set or static?"),
        ({"actor__activation": "gelu"}, "did you mean elu or relu?"),
        ({"encoder__residual": "skip"}, "there are none, pre, post, branch"),
        ({"critic__hidden": 0}, "critic.hidden=0"),
        ({"critic__interval": 0}, "critic.interval=0"),
        ({"critic__drop_fraction": 1.5}, "critic.drop_fraction=1.5"),
        ({"critic__interval": 800}, "end=702 is before start=800"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"discount": 1.1}, "discount=1.1"),
        ({"learning_starts": 6}, "learning_starts=6"),
        ({"buffer_size": 12}, "buffer_size=12"),
        ({"buffer_size": 15}, "buffer_size=15 must be at least batch_size=16"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(changes, words):
    with pytest.raises(ValueError, match=r".") as caught:
        make_agent("mrq", mrq_config(**changes), Sizes.vector(4, 2), 1000)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("regime", "first", "last"),
    [
        ("static", 0.6, 0.6),
        ("set", 0.6, 0.6),
        ("set_by_sign", 0.6, 0.6),
        ("rigl", 0.6, 0.6),
        ("rigl_averaged", 0.6, 0.6),
        ("snfs", 0.6, 0.6),
        ("snfs_redistributed", 0.6, 0.6),
        ("snfs_redistributed_adam", 0.6, 0.6),
        ("gradual_magnitude_pruning", 0.0, 0.6),
        ("gradual_magnitude_pruning_global", 0.0, 0.6),
        ("granet", 0.0, 0.6),
        ("granet_global", 0.0, 0.6),
        ("dense_then_rigl", 0.0, 0.6),
        ("gradual_growth", 0.6, 0.0),
        ("topology_aware_revival", 0.62, 0.6),
        ("neuroplastic_expansion", 0.6, 0.25),
        ("neuroplastic_expansion_dormancy", 0.6, 0.55),  # 28 of about 208 rewires to 0.25
    ],
)
def test_every_regime_works_on_any_module(regime, first, last):
    config = mrq_config("dense", actor__regime=regime, actor__sparsity=0.6, actor__interval=50)
    plan = make_agent("mrq", config, Sizes.vector(4, 2), 2000).plans["actor"]
    (table,) = plan.tables
    total = 16 * 16 * 2 + 16 * 2  # the actor's kernels
    counts = np.asarray(table.target).sum(axis=1)
    assert 1 - counts[0] / total == pytest.approx(first, abs=2 / total)
    assert 1 - counts[-1] / total == pytest.approx(last, abs=2 / total)


def test_regimes_listed_are_those_tested():
    from mst_jax.topology import REGIMES

    marks = test_every_regime_works_on_any_module.pytestmark[0].args[1]
    elsewhere = {"dense", "network_sparsity"}  # the second counts other leaves: test_sac_ddpg.py
    assert {*elsewhere, *(mark[0] for mark in marks)} == {*REGIMES}


def test_defaults_are_the_published_ones():
    config = MRQConfig()
    assert (config.encoder.learning_rate, config.critic.learning_rate) == (1e-4, 3e-4)
    assert (config.critic.depth, config.encoder.depth, config.actor.depth) == (3, 2, 2)
    assert (config.encoder.activation, config.actor.activation) == ("elu", "relu")
    assert config.span == 6
    assert {m.regime for m in (config.encoder, config.critic, config.actor)} == {"dense"}


def test_twin_heads_get_independent_masks():
    agent = make_agent("mrq", mrq_config(), Sizes.vector(4, 2), 1000)
    critic = agent.masks(agent.init(jax.random.key(0)))["critic"]
    for layer in ("layer_1", "layer_2", "layer_3"):
        q1, q2 = (critic[q]["trunk"][layer]["kernel"] for q in ("q1", "q2"))
        assert (q1 != q2).any()


@pytest.mark.slow
def test_conditionals_of_a_restored_run_are_those_of_a_fresh_one():
    _, agent, run = start_mrq(POINT, mrq_config(), [0, 1], steps=66)
    restored = loop_from_arrays(loop_to_arrays(run), jax.eval_shape(lambda: run))
    for state in (run, restored):
        found = conditionals_of_a_step(agent, state)
        assert [equation.invars[0].aval.shape for equation in found] == [(), ()]


@pytest.mark.slow
def test_conditionals_survive_compilation():
    driver, _agent, _run = start_mrq(POINT, mrq_config(), [0, 1], steps=66)
    text = driver._programs._compiled[Phase.LEARN].as_text()
    assert text.count(" conditional(") == 2


@pytest.mark.slow
def test_the_encoder_moves_only_in_bursts_and_targets_are_copied_before_them():
    driver, _agent, run = start_mrq(POINT, mrq_config(), [0, 1], steps=64)
    changed, copied = [], []
    for _ in range(22):
        before = jax.device_get(run.agent)
        run = advance(driver, run, 1)
        after = jax.device_get(run.agent)
        changed.append(not same(before.params["encoder"], after.params["encoder"]))
        copied.append(same(before.params, after.target_params))
        assert not same(before.params["critic"], after.params["critic"])
        assert not same(before.params["actor"], after.params["actor"])
    assert changed == ([True] + [False] * 9) * 2 + [True, False]
    assert copied == changed
    assert int(run.clock.update) == 22
    count = run.agent.opt_state["encoder"].inner.inner_state[0].count
    assert int(count[0]) == 3 * 10, "three bursts of ten encoder updates"


def same(a, b):
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.slow
def test_reward_scales_follow_the_buffer():
    config = mrq_config("dense", target_period=5)
    env = probe.constant_reward_truncated(length=20).env
    driver, _agent, run = start_mrq(env, config, [0], steps=65)
    assert float(run.agent.target_reward_scale[0]) == 1.0
    slots = 65 + 65 // 20  # rewards of 1, and a zero in the slot of each final observation
    assert float(run.agent.reward_scale[0]) == pytest.approx(65 / slots, rel=1e-6)
    run = advance(driver, run, 5)
    assert float(run.agent.target_reward_scale[0]) == pytest.approx(65 / slots, rel=1e-6)
    assert float(run.agent.reward_scale[0]) == pytest.approx(70 / (70 + 3), rel=1e-6)


@pytest.mark.slow
def test_masks_stay_exact_and_parameters_zero_outside_them():
    config = mrq_config("all_rigl", critic__interval=3, actor__interval=4, encoder__interval=5)
    driver, agent, run = start_mrq(POINT, config, [0, 1], 64, total_steps=2000)
    first = jax.device_get(agent.masks(run.agent))
    budgets = jax.tree.map(lambda m: m.sum(axis=tuple(range(1, m.ndim))), first)
    for _ in range(5):
        run = advance(driver, run, 400)
        masks, params = jax.device_get((agent.masks(run.agent), agent.parameters(run.agent)))
        now = jax.tree.map(lambda m: m.sum(axis=tuple(range(1, m.ndim))), masks)
        jax.tree.map(np.testing.assert_array_equal, now, budgets)
        assert zero_outside(params, masks)
    for leaf, start in zip(jax.tree.leaves(masks), jax.tree.leaves(first), strict=True):
        if not start.all():
            assert (np.asarray(leaf) != start).any(), "rewiring happened"
    assert int(run.clock.update) % config.target_period == 0, "the next update copies targets"
    run = advance(driver, run, 1)
    assert zero_outside(run.agent.target_params, masks)


def zero_outside(params, masks):
    for name, tree in masks.items():
        flat = dict(jax.tree_util.tree_flatten_with_path(params[name])[0])
        for path, mask in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if np.any(np.asarray(flat[path])[~np.asarray(mask)]):
                return False
    return True


@pytest.mark.slow
def test_seed_alone_equals_seed_among_others():
    """docs/design.md rule 5, on an environment whose observations do not depend on actions."""
    env, config = envs.make("probe:observation_reward"), mrq_config()
    alone = start_mrq(env, config, [1], steps=0)
    among = start_mrq(env, config, [0, 1], steps=0)

    def seed(tree, index):
        return jax.tree.map(lambda leaf: leaf[index], tree)

    pairs = [(alone[2], 0), (among[2], 1)]
    keys = [jax.random.key_data(run.keys[i]) for run, i in pairs]
    np.testing.assert_array_equal(*keys)
    masks = [seed(alone[1].masks(run.agent), i) for run, i in pairs]
    for a, b in zip(*map(jax.tree.leaves, masks), strict=True):
        np.testing.assert_array_equal(a, b)
    for field in ("observation", "action"):
        a, b = (np.asarray(getattr(run, field))[i] for run, i in pairs)
        np.testing.assert_array_equal(a, b)

    runs = [advance(driver, run, 64) for driver, agent, run in (alone, among)]
    for _ in range(5):
        runs = [
            advance(driver, run, 10)
            for (driver, agent, _), run in zip((alone, among), runs, strict=True)
        ]
        drawn = [sampled(run, i) for run, i in zip(runs, (0, 1), strict=True)]
        np.testing.assert_array_equal(*drawn)
        trees = [seed(run.agent.params, i) for run, i in zip(runs, (0, 1), strict=True)]
        for a, b in zip(*(jax.tree.leaves(tree) for tree in trees), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())


def sampled(run, index):
    """What seed `index` would sample now."""
    from mst_jax import replay

    keys = keys_for(run.keys, 3, run.clock.step)
    return np.asarray(jax.vmap(lambda v, k: v.sample(k, 64))(replay.view(run.buffer), keys))[index]


@pytest.mark.slow
def test_a_seed_with_non_finite_parameters_is_marked_and_the_others_go_on():
    from mst_jax.program.step import finish_chunk

    def after_damage(value):
        driver, agent, run = start_mrq(POINT, mrq_config(), [0, 1], 80)
        damaged = jax.tree.map(lambda leaf: leaf, run.agent.params)
        kernel = damaged["actor"]["layer_1"]["kernel"]
        damaged["actor"]["layer_1"]["kernel"] = kernel.at[1].set(kernel[1] * value)
        run = run.replace(agent=run.agent.replace(params=damaged))
        run = advance(driver, run, 1)
        assert np.isfinite(run.action).all(), "a NaN never reaches the environment"
        run, _, _ = jax.jit(partial(finish_chunk, agent))(run)
        return advance(driver, run, 30)

    healthy, sick = after_damage(1.0), after_damage(jnp.nan)
    np.testing.assert_array_equal(healthy.healthy, [True, True])
    np.testing.assert_array_equal(sick.healthy, [True, False])
    np.testing.assert_array_equal(sick.action[1], np.zeros(2))
    for a, b in zip(
        jax.tree.leaves(healthy.agent.params), jax.tree.leaves(sick.agent.params), strict=True
    ):
        np.testing.assert_array_equal(a[0], b[0])
