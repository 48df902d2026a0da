"""TD3's three changes to DDPG, by hand, and what a delayed actor costs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import advance, equations, small_config, start_run

from mst_jax import envs, topology
from mst_jax.agents import ModuleConfig, Sizes, make_agent, sweep
from mst_jax.agents.actor_critic.core import Batch
from mst_jax.agents.actor_critic.td3 import TD3Config, build_td3
from mst_jax.agents.parts import optimizers

SIZES = Sizes.vector(3, 2, 500)


@pytest.fixture(scope="module")
def td3():
    return build_td3(small_config("dense", "td3", normalize_observations=False), SIZES, 10_000)


@pytest.fixture(scope="module")
def state(td3):
    return jax.jit(td3.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    return Batch(draw(8, 3), jnp.tanh(draw(8, 2)), draw(8), jnp.arange(8) % 3 == 0, draw(8, 3))


def test_the_target_is_the_smaller_value_of_a_smoothed_action(td3, state, batch):
    state = state.replace(target_actor=jax.tree.map(lambda x: 1.5 * x, state.target_actor))
    noise = jnp.asarray(np.random.default_rng(1).normal(size=(8, 2)) * 3, jnp.float32)
    raw = np.tanh(td3.actor.apply(state.target_actor, batch.next_observation))
    smoothed = np.clip(raw + np.clip(0.2 * noise, -0.5, 0.5), -1, 1)
    assert (np.abs(0.2 * noise) > 0.5).any()
    np.testing.assert_allclose(td3.next_action(state, batch, noise), smoothed, atol=1e-6)
    values = td3.core.values(state.target_critic, batch.next_observation, smoothed)
    assert values.shape == (8, 2)
    expected = batch.reward + td3.core.discount * (1 - batch.terminated) * values.min(axis=1)
    target = td3.core.target(state, batch, jnp.asarray(smoothed), 0.0)
    np.testing.assert_allclose(target, expected, rtol=1e-5)


def test_actor_and_targets_follow_every_second_update(td3, state, batch, monkeypatch):
    """By hand: one Adam step of the actor up the first critic's value, and two Polyak steps."""
    update = jax.jit(td3.update)
    first, metrics = update(state, batch, jax.random.key(1), jnp.int32(0))
    for name in ("actor", "critic"):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), first.params, state.params)[name]
        assert all(jax.tree.leaves(same)) == (name == "actor")
    for name in ("target_critic", "target_actor"):
        for a, b in zip(*(jax.tree.leaves(getattr(s, name)) for s in (first, state)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert int(metrics["actor/loss"].count) == 0
    second, metrics = update(first, batch, jax.random.key(2), jnp.int32(1))
    assert int(metrics["actor/loss"].count) == 1

    def loss(actor):
        action = jnp.tanh(td3.actor.apply(actor, batch.observation))
        return -td3.core.values(second.params["critic"], batch.observation, action)[:, 0].mean()

    value, grads = jax.value_and_grad(loss)(state.params["actor"])
    assert float(metrics["actor/loss"].total) == pytest.approx(float(value), rel=1e-5)
    config = td3.core.config.actor
    adamw = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    steps, _ = adamw.update(grads, adamw.init(state.params["actor"]), state.params["actor"])
    actor = optax.apply_updates(state.params["actor"], steps)
    near = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(near, second.params["actor"], actor)
    polyak = lambda old, new: (1 - 0.005) * old + 0.005 * new  # noqa: E731
    jax.tree.map(near, second.target_actor, jax.tree.map(polyak, state.target_actor, actor))
    expected = jax.tree.map(polyak, state.target_critic, second.params["critic"])
    jax.tree.map(near, second.target_critic, expected)


def dots(jaxpr):
    """How many matrix products are in a jaxpr and everything inside it."""
    return len(list(equations(jaxpr, "dot_general")))


def test_a_skipped_update_of_the_actor_costs_nothing(td3, state, batch):
    """Its forward and backward pass are in one branch of a conditional on the clock, of 3 seeds."""
    states, batches = (jax.tree.map(lambda x: jnp.stack([x] * 3), t) for t in (state, batch))
    update = jax.vmap(td3.update, (0, 0, 0, None))
    keys = jax.random.split(jax.random.key(0), 3)
    jaxpr = jax.make_jaxpr(update)(states, batches, keys, jnp.int32(0)).jaxpr
    (delayed,) = equations(jaxpr, "cond")
    assert delayed.invars[0].aval.shape == ()
    skipped, made = (dots(branch.jaxpr) for branch in delayed.params["branches"])
    assert skipped == 0
    alone = jax.make_jaxpr(lambda s: td3.update_actor(s, batch, batch.action, 0))(state)
    assert made == dots(alone.jaxpr)
    assert dots(jaxpr) > made


@pytest.mark.slow
def test_every_schedule_ends_where_its_module_ends():
    """Fault E6: RigL freezes at 0.75 of the actor's updates, half as many as the critics'."""
    changes = {"actor__interval": 5, "critic__interval": 5}
    config = small_config("all_rigl", "td3", **changes)
    agent = make_agent("td3", config, envs.make("probe:point").spec, 64 + 40)
    assert {name: one.updates for name, one in agent.modules.items()} == {"critic": 80, "actor": 40}
    driver, agent, run = start_run(
        envs.make("probe:point"), config, [0], 64 + 24, total_steps=64 + 40, agent="td3"
    )
    kept = {}
    for steps in (24, 31, 40):
        run = advance(driver, run, steps - (int(run.clock.step) - 64))
        kept[steps] = jax.device_get(agent.masks(run.agent))
    same = lambda a, b: all((x == y).all() for x, y in zip(a, b, strict=True))  # noqa: E731
    masks = {k: {n: jax.tree.leaves(m) for n, m in v.items()} for k, v in kept.items()}
    for name in ("actor", "critic"):
        assert not same(masks[24][name], masks[31][name]), "moves until three quarters"
        assert same(masks[31][name], masks[40][name]), "is frozen after"
    means = run.totals.metrics
    assert means["actor/loss"].count.tolist() == [40]
    assert int(run.totals.updates) == 40
    for name, params in agent.parameters(run.agent).items():
        topology.check(
            jax.tree.map(lambda x: x[0], params),
            jax.tree.map(lambda x: x[0], run.agent.opt_state[name]),
        )


@pytest.mark.slow
def test_what_an_optimizer_asks_for_is_passed_on(td3, state, monkeypatch):
    """And anything else is an error in one line."""
    asked = {}

    def make(config):
        def update(updates, own, params=None, *, delta, **_):
            asked["delta"] = delta
            return jax.tree.map(lambda g: -config.learning_rate * g, updates), own

        return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    monkeypatch.setitem(optimizers.OPTIMIZERS, "traced", optimizers.Optimizer(make, ("delta",)))
    config = small_config("mst", "td3", critic__optimizer="traced")
    trained = build_td3(config, SIZES, 10_000).core.trained
    params, opt_state = jax.jit(trained.init)(jax.random.key(0))
    critic = params["critic"]
    step = partial(trained.step, "critic", critic, critic, opt_state["critic"], jnp.int32(1))
    moved, _ = step(delta=jnp.float32(3))
    assert float(asked["delta"]) == 3
    topology.check(moved, opt_state["critic"])
    with pytest.raises(ValueError, match="critic: its optimizer asks for delta, and is given noth"):
        step()
    with pytest.raises(ValueError, match="asks for nothing more, and is given delta"):
        trained.step("actor", None, None, None, None, delta=1)
    rates = [
        small_config("mst", "td3", critic__optimizer="traced", critic__learning_rate=r)
        for r in (0.1, 0.2)
    ]
    with pytest.raises(ValueError, match=r"cannot differ in critic\.learning_rate"):
        sweep("td3", rates, SIZES, 10_000)
    with pytest.raises(ValueError, match="optimizer='adam' is unknown"):
        small_config("mst", "td3", critic__optimizer="adam").validate()


def test_only_what_where_matches_is_sparse():
    where = r"q1/.*block_1.*"
    config = small_config("mst", "td3", critic__where=where)
    plan = make_agent("td3", config, SIZES, 10_000).plans["critic"]
    masked = set(plan.entries())
    assert masked
    assert all(path.startswith("q1/") and "block_1" in path for path in masked)
    with pytest.raises(ValueError, match=r"critic\.where='qq' matches none of its"):
        make_agent("td3", small_config("mst", "td3", critic__where="qq"), SIZES, 10_000)
    with pytest.raises(ValueError, match=r"critic\.where='\(' is no pattern"):
        TD3Config(critic=ModuleConfig(where="(")).validate()
