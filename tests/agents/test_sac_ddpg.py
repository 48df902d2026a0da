"""What SAC and DDPG promise, and twin critics on a two-unit network written out in NumPy.

Their whole updates are compared with the authors' program in test_simba_fixture.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from small_runs import advance, small_config, start_run

from mst_jax import envs, topology
from mst_jax.agents import ModuleConfig, Sizes, default_config, make_agent
from mst_jax.agents.actor_critic.config import SACConfig
from mst_jax.agents.actor_critic.core import Batch
from mst_jax.agents.actor_critic.sac import build_sac
from mst_jax.agents.parts import losses
from mst_jax.agents.parts.temperature import TemperatureConfig

SIZES = Sizes.vector(1, 1, 500)
RNG = np.random.default_rng(0)
BATCH = Batch(
    observation=RNG.normal(size=(4, 1)).astype(np.float32),
    action=RNG.uniform(-1, 1, size=(4, 1)).astype(np.float32),
    reward=np.array([0.5, -1.0, 2.0, 0.0], np.float32),
    terminated=np.array([False, True, False, False]),
    next_observation=RNG.normal(size=(4, 1)).astype(np.float32),
)
KEY, STEP = jax.random.key(7), jnp.zeros((), jnp.int32)


def two_units(learning_rate):
    return ModuleConfig(
        hidden=2,
        depth=1,
        activation="relu",
        norm=False,
        learning_rate=learning_rate,
        weight_decay=0.0,
    )


def twin_sac(learning_rate):
    modules = {"critic": two_units(learning_rate), "actor": two_units(learning_rate)}
    temperature = TemperatureConfig(initial=0.2, learning_rate=learning_rate)
    agent = build_sac(SACConfig(**modules, twin=True, temperature=temperature), SIZES, 10_000)
    state = jax.jit(agent.core.init)(jax.random.key(1))
    nudged = jax.tree.map(lambda p: p + 0.1, state.target_critic)  # a target unlike the critic
    return agent, state.replace(target_critic=nudged)


def np_linear(layer, x):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def np_values(params, observation, action):
    x = np.concatenate([observation, action], -1)
    heads = [
        np_linear(params[q]["value"], np.maximum(np_linear(params[q]["trunk"]["layer_1"], x), 0))
        for q in sorted(params)
    ]
    return np.concatenate(heads, -1)


def np_policy(params, observation, noise):
    """SAC's sample and its log-probability."""
    features = np.maximum(np_linear(params["trunk"]["layer_1"], observation), 0)
    std = np.exp(-10 + 6 * (1 + np.tanh(np_linear(params["log_std"], features))))
    u = np_linear(params["mean"], features) + std * noise
    log_p = stats.norm.logpdf(noise) - np.log(std) - np.log(1 - np.tanh(u) ** 2)
    return np.tanh(u), log_p.sum(-1)


def np_critic_loss(params, target_params, next_action, bonus):
    soft = np_values(target_params, BATCH.next_observation, next_action).min(-1) + bonus
    target = BATCH.reward + 0.99 * (1 - BATCH.terminated) * soft
    values = np_values(params, BATCH.observation, BATCH.action)
    return ((values - target[:, None]) ** 2).sum(-1).mean()


def test_every_loss_of_twin_sac_by_hand():
    """A learning rate of nothing: all losses are those of the initial parameters."""
    sac, state = twin_sac(1e-30)
    new, metrics = jax.jit(sac.update)(state, BATCH, KEY, STEP)
    noises = np.asarray(jax.random.normal(KEY, (2, 4, 1)), np.float64)
    action, log_p = np_policy(state.params["actor"], BATCH.observation, noises[0])
    values = np_values(state.params["critic"], BATCH.observation, action)
    assert values.shape == (4, 2)
    expected = {
        "actor/loss": (0.2 * log_p - values.min(-1)).mean(),
        "actor/entropy": -log_p.mean(),
        "temperature/loss": 0.2 * (-log_p.mean() + 0.5),
    }
    next_action, next_log_p = np_policy(state.params["actor"], BATCH.next_observation, noises[1])
    expected["critic/loss"] = np_critic_loss(
        state.params["critic"], state.target_critic, next_action, -0.2 * next_log_p
    )
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(new.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-20)


def test_a_target_stops_at_termination_only():
    values = jnp.array([[2.0, 3.0], [2.0, 3.0]])
    target = losses.td_target(
        jnp.array([1.0, 1.0]), jnp.array([False, True]), values, jnp.array([0.5, 0.5]), 0.9
    )
    np.testing.assert_allclose(target, [1 + 0.9 * 2.5, 1.0], rtol=1e-6)
    assert float(losses.critic_loss(values, jnp.array([1.0, 3.0]))) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("length", "discount"), [(500, 0.99), (1000, 0.995), (5000, 0.995), (20, 0.95), (None, 0.995)]
)
def test_discount_heuristic(length, discount):
    assert losses.discount_heuristic(length) == pytest.approx(discount)
    assert default_config("sac").discount_for(length) == pytest.approx(discount)


def test_published_defaults():
    for name in ("sac", "ddpg"):
        config = default_config(name)
        assert [(m.hidden, m.depth, m.residual) for m in (config.actor, config.critic)] == [
            (128, 1, "simba"),
            (512, 2, "simba"),
        ]
        assert (config.critic.learning_rate, config.critic.weight_decay) == (1e-4, 1e-2)
        assert (config.batch_size, config.updates_per_step, config.tau) == (256, 2, 0.005)
        assert (config.learning_starts, config.twin, config.buffer_size) == (5000, False, 10**6)
    for action_size, target in ((21, -10.5), (38, -19.0)):
        sac = build_sac(default_config("sac"), Sizes.vector(67, action_size, 500), 500_000)
        assert sac.target_entropy == target
    assert default_config("sac").temperature.initial == 0.01
    assert default_config("ddpg").exploration_noise == 0.1


@pytest.mark.slow
def test_about_990_thousand_updates_a_run():
    agent = make_agent("sac", small_config("mst", "sac", learning_starts=5000), SIZES, 500_000)
    (group,) = agent.plans["critic"].groups
    assert group.timing.end == int(0.75 * 990_000)


def test_twin_critics_have_masks_of_their_own():
    config = small_config("mst", "sac", twin=True)
    agent = make_agent("sac", config, Sizes.vector(4, 2), 10_000)
    masks = agent.masks(jax.jit(agent.init)(jax.random.key(0)))["critic"]
    for layer in ("expand", "project"):
        q1, q2 = (masks[q]["trunk"]["block_1"][layer]["kernel"] for q in ("q1", "q2"))
        assert (q1 != q2).any()
        assert q1.sum() == q2.sum()


def test_actor_and_critic_sparsity_are_independent():
    for module, other in (("actor", "critic"), ("critic", "actor")):
        changes = {f"{module}__regime": "network_sparsity", f"{module}__sparsity": 0.7}
        agent = make_agent(
            "sac", small_config("dense", "sac", **changes), Sizes.vector(4, 2), 10_000
        )
        masks = agent.masks(jax.jit(agent.init)(jax.random.key(0)))
        assert jax.tree.leaves(masks[module])
        assert not jax.tree.leaves(masks[other])


@pytest.mark.slow
def test_targets_keep_the_critics_mask_through_rewiring():
    config = small_config("all_rigl", "sac", critic__interval=6, actor__interval=7)
    driver, agent, run = start_run(
        envs.make("probe:point"), config, [0, 1], 64, total_steps=2000, agent="sac"
    )
    before = jax.device_get(agent.masks(run.agent)["critic"])
    run = advance(driver, run, 60)
    masks, target = jax.device_get((agent.masks(run.agent)["critic"], run.agent.target_critic))
    kernel = lambda tree: tree["q1"]["trunk"]["block_1"]["expand"]["kernel"]  # noqa: E731
    assert (kernel(before) != kernel(masks)).any(), "it was rewired"
    assert (kernel(target)[~kernel(masks)] == 0).all()
    assert (kernel(target)[kernel(masks)] != 0).any()
    params = jax.device_get(run.agent.params["critic"])
    assert (kernel(params)[~kernel(masks)] == 0).all()
    # Two updates per step, each an optimizer step of every module.
    for name in ("critic", "actor"):
        (count,) = {int(c) for c in run.agent.opt_state[name].inner.inner_state[0].count}
        assert count == 2 * 60
    assert int(run.clock.update) == 60


@pytest.mark.slow
def test_moments_of_kept_weights_equal_those_of_a_masked_forward_pass():
    """The authors multiply by the mask; here pruned weights are zero. Kept weights must agree."""
    config = small_config("network_sparsity_parity", "sac", critic__sparsity=0.5)
    agent = build_sac(config, Sizes.vector(3, 2), 10_000)
    state = jax.jit(agent.core.init)(jax.random.key(0))
    masks = topology.masks(state.opt_state["critic"])
    params, opt_state = state.params["critic"], state.opt_state["critic"]
    dense = jax.tree.map(lambda p: p + 0.0, params)
    adamw = optax.adamw(config.critic.learning_rate, weight_decay=config.critic.weight_decay)
    dense_state = adamw.init(dense)
    rng = np.random.default_rng(0)

    def loss(p, x, y):
        return losses.critic_loss(agent.core.critic.apply(p, x), y)

    @jax.jit
    def both(params, opt_state, dense, dense_state, x, y):
        params, opt_state = agent.core.trained.step(
            "critic", jax.grad(loss)(params, x, y), params, opt_state, STEP
        )
        grads = jax.grad(lambda p: loss(topology.apply(masks, p), x, y))(dense)
        updates, dense_state = adamw.update(grads, dense_state, dense)
        return params, opt_state, optax.apply_updates(dense, updates), dense_state

    for _ in range(6):
        x, y = rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=8).astype(np.float32)
        params, opt_state, dense, dense_state = both(params, opt_state, dense, dense_state, x, y)
    ours, theirs = opt_state.inner.inner_state[0], dense_state[0]
    for mine, other in ((ours.mu, theirs.mu), (ours.nu, theirs.nu), (params, dense)):
        confined = topology.apply(masks, other)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(confined), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_observations_are_stored_raw_and_normalised_when_read():
    config = small_config("dense", "sac")
    _, agent, run = start_run(envs.make("probe:point"), config, [0], 70, agent="sac")
    seen = np.asarray(run.buffer.fields["rows"])[0, :70, :4]
    statistics = jax.device_get(run.agent.statistics)
    assert statistics.count[0] == 70
    # The first observation is not counted, the one to act on next is.
    counted = np.concatenate([seen[1:], np.asarray(run.observation)])
    if np.asarray(run.totals.episodes)[0] == 0:
        np.testing.assert_allclose(statistics.mean[0], counted.mean(0), rtol=1e-4, atol=1e-5)
    evaluated = agent.act(jax.tree.map(lambda x: x[0], run.agent), run.observation[0], None, None)
    off = small_config("dense", "sac", normalize_observations=False)
    raw = make_agent("sac", off, Sizes.vector(4, 2), 10_000)
    other = raw.act(jax.tree.map(lambda x: x[0], run.agent), run.observation[0], None, None)
    assert (evaluated != other).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tau": 0.0}, "tau=0.0"),
        ({"buffer_size": 5}, "buffer_size=5 must be at least batch_size=16"),
        ({"discount": 1.5}, "discount=1.5"),
        ({"updates_per_step": 0}, "updates_per_step=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"temperature__initial": 0.0}, "temperature.initial=0.0"),
        ({"critic__sparsity": 1.0}, "critic.sparsity=1.0"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(changes, words):
    with pytest.raises(ValueError, match=r".") as caught:
        make_agent("sac", small_config("mst", "sac", **changes), Sizes.vector(4, 2), 10_000)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
