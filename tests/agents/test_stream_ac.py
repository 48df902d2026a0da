"""Stream AC(λ) against the recorded reference program, and what only a stream has."""

import dataclasses
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax import topology
from mst_jax.agents import Clock, Experience, Latest, Sizes, default_config, make_agent, sweep
from mst_jax.agents.parts.running_statistics import (
    empty_statistics,
    normalised,
    observed,
    of_sample,
)
from mst_jax.agents.stream.scaling import empty_scale
from mst_jax.agents.stream.stream_ac import build_stream_ac
from mst_jax.envs.spaces import Continuous, Discrete, Observation
from mst_jax.recipes import override

DATA = Path(__file__).parents[1] / "data/stream_ac.npz"
SIZES = Sizes.vector(7, 2)
SMALL = {f"{module}.hidden": 16 for module in ("critic", "actor")}
PLAIN = {**SMALL, "normalize_observations": False, "scale_rewards": False}
STATIC = {
    f"{m}.{k}": v for m in ("critic", "actor") for k, v in (("regime", "static"), ("sparsity", 0.6))
}
LAYERS = {
    "fc_layer": ("trunk", "layer_1"),
    "hidden_layer": ("trunk", "layer_2"),
    "linear_layer": ("value",),
    "linear_mu": ("mean",),
    "linear_std": ("std",),
}


@cache
def fixture():
    return dict(np.load(DATA))


@cache
def built(*changes):
    return build_stream_ac(override(default_config("stream_ac"), dict(changes)), SIZES, 1_000)


@cache
def learning(*changes):
    return jax.jit(built(*changes).learn)


def agent_with(**changes):
    return built(*sorted({**PLAIN, **changes}.items()))


def params_at(prefix):
    """The recorded parameters in our layout: kernels (in, out)."""
    found = {"critic": {"q1": {}}, "actor": {}}
    for name, array in fixture().items():
        if not name.startswith(f"{prefix}/"):
            continue
        module, layer, kind = name.removeprefix(f"{prefix}/").replace(".", "/").split("/")
        node = found["critic"]["q1"] if module == "critic" else found["actor"]
        for part in LAYERS[layer]:
            node = node.setdefault(part, {})
        node["kernel" if kind == "weight" else "bias"] = jnp.asarray(array.T)
    return found


def latest(index, *, terminated=None, truncated=False):
    f = fixture()
    over = bool(f["dones"][index]) if terminated is None else terminated
    return Latest(
        jnp.asarray(f["observations"][index])[None],
        jnp.asarray(f["actions"][index])[None],
        jnp.asarray(f["rewards"][index])[None],
        jnp.asarray([over]),
        jnp.asarray([truncated]),
        jnp.asarray(f["observations"][index + 1])[None],
    )


def clock(update):
    return Clock(jnp.int32(update), jnp.int32(update))


def learned(state, changes, transitions, first=0):
    """States and metrics after each transition."""
    learn, rows = learning(*sorted(changes.items())), []
    for update, transition in enumerate(transitions, first):
        experience = Experience(transition, None)
        state, none, metrics = learn(state, experience, jax.random.key(9), clock(update))
        assert none is None
        rows.append((state, metrics))
    return rows


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_close(ours, theirs, tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def test_twelve_recorded_transitions():
    agent = agent_with()
    state = agent.init(jax.random.key(0)).replace(params=params_at("params"))
    features = jnp.asarray(fixture()["observations"][0])
    mean, std = agent.policy(state.params["actor"], features)
    np.testing.assert_allclose(mean, fixture()["forward/mean"], atol=1e-6)
    np.testing.assert_allclose(std, fixture()["forward/std"], atol=1e-6)
    value = agent.state_value(state.params["critic"], features)
    np.testing.assert_allclose(value, fixture()["forward/value"][0], atol=1e-6)
    rows = learned(state, PLAIN, [latest(i) for i in range(12)])
    errors = [metrics["critic/td_error"] for _, metrics in rows]
    np.testing.assert_allclose(errors, np.abs(fixture()["td_errors"]), rtol=0, atol=1e-6)
    for count in (1, 5, 12):
        assert_close(rows[count - 1][0].params, params_at(f"params_after_{count}"), 1e-6)


def test_a_truncation_ends_like_a_termination():
    state = agent_with().init(jax.random.key(0)).replace(params=params_at("params"))
    ended, cut = (
        learned(state, PLAIN, [latest(0, terminated=kind), latest(1)])
        if kind
        else learned(state, PLAIN, [latest(0, terminated=False, truncated=True), latest(1)])
        for kind in (True, False)
    )
    assert_close(ended[1][0].params, cut[1][0].params, 0)
    going = learned(state, PLAIN, [latest(0, terminated=False), latest(1)])
    assert going[0][1]["critic/td_error"] != ended[0][1]["critic/td_error"]
    # The next step's trace is its own gradient: nothing of the ended episode is in it.
    slope = jax.grad(agent_with().state_value)(
        ended[0][0].params["critic"], jnp.asarray(fixture()["observations"][1])
    )
    traces = topology.states(ended[1][0].opt_state["critic"])[0].inner.trace
    assert_close(traces, slope, 1e-6)


def test_normaliser_is_the_recorded_one():
    x, wanted = fixture()["normalizer/x"], fixture()["normalizer/y"]
    statistics, found = empty_statistics(x.shape[1]), []
    for row in x.astype(np.float32):
        statistics = observed(statistics, row[None], prior=0.0)
        found.append(normalised(of_sample(statistics), row))
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_reward_scale_is_the_recorded_one():
    f, scale, found = fixture(), empty_scale(), []
    for reward, over in zip(f["reward_scaler/reward"], f["reward_scaler/done"], strict=True):
        scale = scale.after(jnp.float32(reward), jnp.asarray(over), 0.99)
        found.append(reward / scale.deviation)
    np.testing.assert_allclose(found, f["reward_scaler/scaled"], rtol=2e-5)


def test_observations_enter_the_statistics_once_each():
    """First ones through `observe`, all others as the end of their transition; features agree."""
    agent, f = built(*sorted(SMALL.items())), fixture()["observations"]
    state = agent.init(jax.random.key(0))
    state = agent.observe(state, jnp.asarray(f[:1]), jnp.ones(1, bool))
    seen = agent.features(state, jnp.asarray(f[0]))
    state, first = agent.taken_in(state, jax.tree.map(lambda x: x[0], latest(0)))
    np.testing.assert_array_equal(first.features, seen)
    state = agent.observe(state, jnp.asarray(f[1:2]), jnp.zeros(1, bool))
    assert int(state.statistics.count) == 2
    np.testing.assert_allclose(state.statistics.mean, f[:2].mean(0), atol=1e-6)
    assert_close(of_sample(state.statistics).variance, f[:2].var(0, ddof=1), 1e-5)
    again = agent.observe(state, jnp.asarray(f[5:6]), jnp.ones(1, bool))
    assert int(again.statistics.count) == 3
    _, second = agent.taken_in(state, jax.tree.map(lambda x: x[0], latest(1)))
    np.testing.assert_array_equal(second.features, first.next_features)


@pytest.mark.parametrize("within", [False, True])
def test_traces_and_weights_stay_inside_their_masks(within):
    changes = {**PLAIN, **STATIC, "critic.init_within_mask": within}
    agent = agent_with(**changes)
    state = agent.init(jax.random.key(0))
    rows = learned(state, changes, [latest(i, terminated=False) for i in range(6)])
    for module in ("critic", "actor"):
        now, own = rows[-1][0], topology.states(rows[-1][0].opt_state[module])[0]
        ones = topology.apply(own.masks, jax.tree.map(jnp.ones_like, now.params[module]))
        pruned = sum((leaf == 0).sum() for leaf in leaves(ones))
        assert pruned > 100
        active = 0.0
        for mask, weight, trace in zip(
            leaves(ones), leaves(now.params[module]), leaves(own.inner.trace), strict=True
        ):
            assert (weight[mask == 0] == 0).all()
            assert (trace[mask == 0] == 0).all()
            active += np.abs(trace[mask == 1]).sum()
        np.testing.assert_allclose(rows[-1][1][f"{module}/trace_norm"], active, rtol=1e-5)


def test_sparse_init_silences_nine_inputs_of_ten():
    config = override(default_config("stream_ac"), {**STATIC, "critic.init_within_mask": True})
    wide = build_stream_ac(config, Sizes.vector(18, 6), 1_000)
    params = wide.init(jax.random.key(3))
    dense = built(*sorted(SMALL.items())).init(jax.random.key(3)).params
    kernel = np.asarray(dense["actor"]["trunk"]["layer_2"]["kernel"])
    assert ((kernel != 0).sum(0) == 16 - 15).all()  # ceil(14.4) of 16 inputs are zero
    assert np.abs(kernel).max() <= 1 / 4
    assert all((x == 0).all() for x in leaves(dense) if x.ndim == 1)
    masks = topology.masks(params.opt_state["critic"])["q1"]["trunk"]["layer_2"]["kernel"]
    live = np.asarray(params.params["critic"]["q1"]["trunk"]["layer_2"]["kernel"] != 0)
    active = np.asarray(masks)
    assert not (live & ~active).any()
    np.testing.assert_array_equal(live.sum(0), active.sum(0) - np.ceil(0.9 * active.sum(0) - 1e-4))


def test_static_without_sparsity_equals_dense():
    """So that S = 0 may share a program with S = 0.4 and 0.8."""
    full = {**PLAIN, **STATIC, "critic.sparsity": 0.0, "actor.sparsity": 0.0}
    begun = [agent_with(**c).init(jax.random.key(0)) for c in (full, {})]
    assert_close(begun[0].params, begun[1].params, 0)
    transitions = [latest(i) for i in range(4)]
    ours, theirs = (
        learned(state, changes, transitions)[-1][0]
        for state, changes in zip(begun, (full, PLAIN), strict=True)
    )
    assert_close(ours.params, theirs.params, 1e-7)


def test_vmapped_equals_single():
    state = [agent_with().init(jax.random.key(seed)) for seed in range(2)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *state)
    experience = Experience(latest(0), None)
    learn = jax.jit(jax.vmap(agent_with().learn, (0, None, None, None)))
    both, _, _ = learn(together, experience, jax.random.key(9), clock(0))
    for seed in range(2):
        alone = learned(state[seed], PLAIN, [latest(0)])[0][0]
        assert_close(jax.tree.map(lambda x, s=seed: x[s], both.params), alone.params, 1e-6)


def test_native_actions_are_drawn_in_the_units_of_the_task():
    space = dataclasses.replace(Continuous(2), low=(-3.0, 0.0), high=(3.0, 10.0))
    sizes, config = Sizes(Observation((7,)), space), override(default_config("stream_ac"), SMALL)
    native = build_stream_ac(config, sizes, 1_000)
    unit = build_stream_ac(override(config, {"action_scale": "unit"}), sizes, 1_000)
    state, x = native.init(jax.random.key(0)), jnp.asarray(fixture()["observations"][0])
    state = state.replace(params=params_at("params"))
    drawn, stored = (a.act(state, x, jax.random.key(4), clock(0)) for a in (unit, native))
    np.testing.assert_allclose(stored, (drawn - np.array([0, 5])) / np.array([3, 5]), rtol=1e-6)
    # Learning sees what was drawn.
    taken = jax.tree.map(lambda a: a[0], latest(0))
    _, transition = native.taken_in(state, taken)
    np.testing.assert_allclose(
        transition.action, taken.action * np.array([3, 5]) + np.array([0, 5]), rtol=1e-6
    )


def test_critic_grows_by_the_averaged_gradient_of_its_loss():
    """Averages of -δ∇V, not of ∇V: the sign of δ decides whether two samples add up."""
    changes = {**PLAIN, "critic.regime": "rigl_averaged", "critic.sparsity": 0.6}
    changes |= {"critic.interval": 500}
    agent = agent_with(**changes)
    state = agent.init(jax.random.key(0))
    params = state.params["critic"]
    rows = learned(state, changes, [latest(0)])
    slope = jax.grad(agent.state_value)(params, jnp.asarray(fixture()["observations"][0]))
    _, transition = agent.taken_in(state, jax.tree.map(lambda x: x[0], latest(0)))
    error = agent.td_error(params, transition)[0]
    averages = topology.states(rows[0][0].opt_state["critic"])[0].averages
    path = "q1/trunk/layer_2/kernel"
    wanted = np.abs(0.001 * error * slope["q1"]["trunk"]["layer_2"]["kernel"])
    np.testing.assert_allclose(np.abs(averages[path]), wanted, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"critic.weight_decay": 0.1},
            "critic.weight_decay=0.1 has no effect with critic.optimizer",
        ),
        ({"actor.optimizer": "adamw"}, "does not step along TD errors: choose obgd"),
        ({"actor.kappa": 0.0}, "actor.kappa=0.0 must be positive"),
        ({"critic.init_sparsity": 1.0}, r"critic.init_sparsity=1.0 must be in \[0, 1\)"),
        ({"discount": 1.0}, r"discount=1.0 must be in \[0, 1\)"),
        ({"action_scale": "radians"}, "action_scale='radians' is none of native, unit"),
    ],
)
def test_impossible_settings_are_one_line(changes, message):
    config = override(default_config("stream_ac"), changes)
    with pytest.raises(ValueError, match=message) as caught:
        make_agent("stream_ac", config, SIZES, 1_000)
    assert "\n" not in str(caught.value)


def test_a_discrete_task_is_refused():
    sizes = Sizes(Observation((7,)), Discrete(3))
    with pytest.raises(ValueError, match="this agent's actions are continuous"):
        make_agent("stream_ac", default_config("stream_ac"), sizes, 1_000)


def test_obgd_is_refused_where_there_is_no_stream():
    config = override(default_config("sac"), {"critic.optimizer": "obgd"})
    with pytest.raises(ValueError, match="obgd steps along the TD error of a stream"):
        make_agent("sac", config, SIZES, 10_000)


def test_learning_reads_nothing_but_the_latest_transition():
    """The replay that is kept for diagnostics is no input of what `learn` computes."""
    agent = agent_with()
    state = agent.init(jax.random.key(0))

    def learn(replay, key):
        return agent.learn(state, Experience(latest(0), replay), key, clock(0))

    jaxpr = jax.make_jaxpr(partial(learn))(jnp.ones(3), jax.random.key(0)).jaxpr
    used = {str(v) for eqn in jaxpr.eqns for v in eqn.invars}
    assert not used & {str(v) for v in jaxpr.invars}


@pytest.mark.slow
def test_dense_and_sparse_share_a_program():
    """S = 0, 0.4 and 0.8, each with its own counts; the first begins as a dense one."""
    configs = [
        override(default_config("stream_ac"), {**SMALL, **STATIC, "critic.sparsity": s})
        for s in (0.0, 0.4, 0.8)
    ]
    agent, numbers = sweep("stream_ac", configs, SIZES, 1_000)
    states = jax.jit(jax.vmap(agent.init, (None, 0)))(jax.random.key(3), numbers)
    masks = agent.masks(states)["critic"]
    found = [float(topology.density(jax.tree.map(lambda m, i=i: m[i], masks))) for i in range(3)]
    np.testing.assert_allclose(found, [1.0, 0.6, 0.2], atol=0.01)
    dense = built(*sorted(SMALL.items())).init(jax.random.key(3)).params["critic"]
    assert_close(jax.tree.map(lambda p: p[0], states.params["critic"]), dense, 0)
