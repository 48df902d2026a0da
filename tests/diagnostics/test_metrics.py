"""Every metric against NumPy in float64 or by hand, degenerate inputs included."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import POINT, by_default, small_config, start_run

from mst_jax import envs, networks, topology
from mst_jax.agents import Probe, make_agent
from mst_jax.diagnostics import (
    METRICS,
    Evidence,
    active_fraction,
    complexity,
    diagnose,
    dormant_percentage,
    effective_rank,
    gradient_covariance,
    interference,
    mean_gradient,
    measured,
    sample_gradients,
    simplicity_score,
    srank,
)
from mst_jax.networks import Activity, Architecture
from mst_jax.program.diagnosing import check_metrics
from mst_jax.program.state import between_steps

RNG = np.random.default_rng(0)


def np_srank(x, delta=0.01):
    values = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    shares = np.cumsum(values) / values.sum()
    return 1 + int(np.sum(shares < 1 - delta))


def np_effective_rank(x):
    values = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    share = values / values.sum()
    share = share[share > 1e-12]
    return np.exp(-(share * np.log(share)).sum())


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (256, 64)])
def test_ranks_against_float64(shape):
    x = (RNG.normal(size=shape) * np.logspace(0, -3, shape[1])).astype(np.float32)
    assert float(srank(x)) == np_srank(x)
    assert float(effective_rank(x)) == pytest.approx(np_effective_rank(x), rel=1e-4)


@pytest.mark.parametrize("rank", [srank, effective_rank])
def test_ranks_of_several_seeds_are_of_one_matrix_after_the_other(rank):
    """A batch of decompositions can wait for itself for ever (mst_jax/networks/orthogonal.py)."""
    x = jnp.asarray(RNG.normal(size=(3, 9, 5)), jnp.float32)
    together = jax.jit(jax.vmap(rank))
    np.testing.assert_allclose(together(x), [rank(own) for own in x], rtol=1e-6)
    text = together.lower(x).as_text()
    assert re.findall(r'@lapack_\w+_ffi.*?num_batch_dims = "(\d)"', text) == ["0"]


def test_ranks_of_degenerate_features():
    identity, ones = jnp.eye(8), jnp.ones((6, 5))
    assert float(srank(identity)) == 8
    assert float(effective_rank(identity)) == pytest.approx(8, rel=1e-5)
    assert float(srank(ones)) == 1
    assert float(effective_rank(ones)) == pytest.approx(1, abs=1e-3)
    zero = jnp.zeros((6, 5))
    assert float(srank(zero)) == float(effective_rank(zero)) == 0
    assert float(srank(ones[:, :1])) == 1
    broken = ones.at[0, 0].set(jnp.nan)
    assert np.isnan(srank(broken))
    assert np.isnan(effective_rank(broken))


def test_dormant_units_by_hand():
    layer = jnp.array([[1.0, 0.0, -0.05, 2.0], [-3.0, 0.0, 0.05, 2.0]])
    # mean |h| = 2, 0, 0.05, 2; their mean is 1.0125; scores 1.975, 0, 0.049, 1.975
    assert float(dormant_percentage({"a": layer}, 0.1)) == pytest.approx(50.0)
    assert float(dormant_percentage({"a": layer}, 0.04)) == pytest.approx(25.0)
    two = {"a": layer, "b": jnp.ones((2, 4))}
    assert float(dormant_percentage(two, 0.1)) == pytest.approx(25.0)
    assert float(dormant_percentage({"a": jnp.zeros((3, 4))}, 0.1)) == 100.0
    assert float(dormant_percentage({"a": jnp.ones((3, 1))}, 0.1)) == 0.0
    assert np.isnan(dormant_percentage({"a": layer.at[0, 0].set(jnp.nan)}, 0.1))
    assert float(active_fraction({"a": layer})) == pytest.approx(4 / 8)
    assert np.isnan(active_fraction({"a": layer.at[0, 0].set(jnp.inf)}))


def toy_probe(size=5):
    """A linear model w.x - y with half of its weights pruned."""
    params = {"kernel": jnp.array([1.0, 0.0, -2.0, 0.0])}
    masks = {"kernel": jnp.array([True, False, True, False])}
    x = jnp.asarray(RNG.normal(size=(size, 4)), jnp.float32)
    y = jnp.asarray(RNG.normal(size=size), jnp.float32)

    def loss(p, sample):
        return jnp.square(sample[0] @ p["kernel"] - sample[1])

    activity = Activity({"a": x}, {"a": jnp.maximum(x, 0)}, x)
    return Probe(params, masks, activity, (x, y), loss)


def test_gradients_against_jacrev_and_by_hand():
    probe = toy_probe()
    x, y = (np.asarray(part, np.float64) for part in probe.samples)
    by_hand = 2 * (x @ np.array([1.0, 0, -2, 0]) - y)[:, None] * x
    np.testing.assert_allclose(sample_gradients(probe, False), by_hand, rtol=1e-4, atol=1e-5)
    losses = lambda p: jax.vmap(probe.loss, (None, 0))(p, probe.samples)  # noqa: E731
    jacobian = jax.jacrev(losses)(probe.params)["kernel"]
    np.testing.assert_allclose(sample_gradients(probe, False), jacobian, rtol=1e-5)
    np.testing.assert_allclose(mean_gradient(probe)["kernel"], by_hand.mean(0), rtol=1e-4)
    active = np.asarray(sample_gradients(probe))
    assert not active[:, [1, 3]].any()
    evidence = Evidence(probe, mean_gradient(probe))
    norms = [float(METRICS[n](evidence)) for n in ("gradient_norm", "dense_gradient_norm")]
    expected = [np.linalg.norm(by_hand.mean(0)[[0, 2]]), np.linalg.norm(by_hand.mean(0))]
    assert norms == pytest.approx(expected, rel=1e-4)
    assert float(METRICS["parameter_norm"](evidence)) == pytest.approx(5**0.5)
    norm = np.linalg.norm(x, axis=1).mean()
    assert float(METRICS["feature_norm"](evidence)) == pytest.approx(norm, rel=1e-5)


def test_covariance_by_hand():
    gradients = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]])
    matrix = gradient_covariance(gradients)
    expected = np.array(
        [
            [1, 1, 0, -1, 0],
            [1, 1, 0, -1, 0],
            [0, 0, 1, 0, 0],
            [-1, -1, 0, 1, 0],
            [0, 0, 0, 0, 0],
        ]
    )
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    mean, opposed = interference(matrix)
    assert float(mean) == pytest.approx((2 * 1 - 4) / 20)
    assert float(opposed) == pytest.approx(4 / 20)
    assert [float(x) for x in interference(jnp.ones((1, 1)))] == [0.0, 0.0]


@pytest.mark.parametrize(
    "name", by_default(["sac"], ["ddpg", "mrq", "mrsac", "sac", "stream_ac", "td3"])
)
def test_every_module_of_every_agent_can_be_diagnosed(name):
    """Vmapped equals alone; sample gradients average to the gradient of the mean loss."""
    _, agent, run = start_run(POINT, small_config("all_static", name), [0, 1], 64, agent=name)
    keys = jax.random.split(jax.random.key(0), 2)
    view = between_steps(run)
    both = jax.jit(jax.vmap(lambda *args: diagnose(agent, *args)))(run.agent, view, keys)
    one = lambda tree: jax.tree.map(lambda x: x[1], tree)  # noqa: E731
    alone = jax.jit(lambda *args: diagnose(agent, *args))(one(run.agent), one(view), keys[1])
    modules = set(agent.plans)
    for metric in (*METRICS, "dead_inputs", "dead_outputs"):
        for module in modules:
            value = both[f"{module}/{metric}"]
            assert value.shape == (2,)
            assert np.isfinite(value).all(), (module, metric)
            tolerance = 1.0 if metric == "srank" else 1e-3 * abs(float(value[1])) + 1e-3
            assert abs(float(alone[f"{module}/{metric}"]) - float(value[1])) <= tolerance

    def gradients_of(state, view, key):
        probes = agent.probe(state, view, key, 8)
        return {n: (sample_gradients(p, False), mean_gradient(p)) for n, p in probes.items()}

    found = jax.jit(gradients_of)(one(run.agent), one(view), keys[1])
    masks, params = one(agent.masks(run.agent)), one(agent.parameters(run.agent))
    for module, (gradients, mean) in found.items():
        assert gradients.shape[0] == 8
        flat = np.concatenate([g.ravel() for g in jax.tree.leaves(mean)])
        scale = np.abs(flat).max()
        np.testing.assert_allclose(gradients.mean(0), flat, rtol=1e-3, atol=2e-4 * scale)
        kept = topology.apply(masks[module], jax.tree.map(jnp.ones_like, params[module]))
        outside = np.concatenate([m.ravel() == 0 for m in jax.tree.leaves(kept)])
        assert (np.asarray(gradients)[:, outside] != 0).any(), f"{module}: dense gradients"


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (lambda evidence: evidence.features, "fails: AttributeError: 'Evidence' object has no"),
        (lambda evidence: evidence.gradient, "is float32[3], not a scalar"),
        (lambda evidence: None, "fails: "),
    ],
)
def test_a_metric_that_gives_no_number_is_one_line(metric, told):
    evidence = Evidence(None, jnp.ones(3))
    assert measured("critic", evidence, {"own": lambda e: e.gradient[0]}) == {"critic/own": 1.0}
    with pytest.raises(ValueError, match=r"^metric 'own' of the critic [^\n]*$") as refused:
        measured("critic", evidence, {"own": metric})
    assert told in str(refused.value)


def test_metrics_of_an_agent_that_cannot_be_probed_are_refused():
    env = envs.make("probe:point")
    agent = make_agent("sac", small_config("mst", "sac"), env.spec, 10_000)._replace(probe=None)
    with pytest.raises(ValueError, match="metrics=json:dumps need an agent that can be probed"):
        check_metrics(agent, env.spec, 100, "json:dumps")
    check_metrics(agent, env.spec, 100, "")


def test_activity_of_simba_is_that_of_its_layers():
    arch = Architecture(4, 2, "relu", True, "simba")
    critic = networks.make_critic(3, arch, heads=2)
    params, x = critic.init(jax.random.key(0)), jnp.asarray(RNG.normal(size=(7, 3)), jnp.float32)
    activity = critic.activity(params, x)
    layers = [f"q{q}/trunk/{name}" for q in (1, 2) for name in ("embed",)]
    layers += [
        f"q{q}/trunk/block_{b}/{n}" for q in (1, 2) for b in (1, 2) for n in ("expand", "project")
    ]
    assert set(activity.pre) == set(layers)
    assert set(activity.post) == {f"q{q}/trunk/block_{b}/active" for q in (1, 2) for b in (1, 2)}
    embed = params["q1"]["trunk"]["embed"]
    np.testing.assert_allclose(
        activity.pre["q1/trunk/embed"], x @ embed["kernel"] + embed["bias"], rtol=1e-5, atol=1e-6
    )
    assert (activity.pre["q1/trunk/block_1/expand"] < 0).any(), "before the ReLU"
    assert (activity.post["q1/trunk/block_1/active"] >= 0).all()
    head = params["q1"]["value"]
    np.testing.assert_allclose(
        activity.features @ head["kernel"] + head["bias"],
        critic.apply(params, x)[:, :1],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("residual", ["none", "pre", "simba"])
def test_activity_of_policies_leaves_the_output_layer_out(residual):
    arch = Architecture(6, 2, "relu", True, residual)
    x = jnp.asarray(RNG.normal(size=(7, 3)), jnp.float32)
    actor = networks.make_actor(3, 2, arch)
    params = actor.init(jax.random.key(0))
    activity = actor.activity(params, x)
    assert activity.features.shape == (7, 6)
    assert not any(path.endswith(("layer_3", "output")) for path in activity.pre)
    last = params["output"] if residual == "simba" else params["layer_3"]
    if residual != "pre":
        np.testing.assert_allclose(
            activity.features @ last["kernel"] + last["bias"],
            actor.apply(params, x),
            rtol=1e-4,
            atol=1e-5,
        )
    gaussian = networks.make_gaussian_actor(3, 2, arch)
    own = gaussian.init(jax.random.key(0))
    mean, _ = gaussian.apply(own, x)
    features = gaussian.activity(own, x).features
    expected = features @ own["mean"]["kernel"] + own["mean"]["bias"]
    np.testing.assert_allclose(expected, mean, rtol=1e-4, atol=1e-5)


def test_complexity_of_pure_waves():
    grid = np.arange(32)
    slow = jnp.asarray(np.sin(2 * np.pi * grid / 32)[:, None] * np.ones(32), jnp.float32)
    fast = jnp.asarray(np.cos(np.pi * grid)[:, None] * np.ones(32), jnp.float32)
    largest = np.hypot(0.5, 0.5)
    assert float(complexity(slow + 5.0)) == pytest.approx(1 / 32 / largest, rel=1e-3)
    assert float(complexity(fast)) == pytest.approx(0.5 / largest, rel=1e-3)


@pytest.mark.slow
def test_simplicity_of_the_default_simba_actor():
    """The published 6.3 (docs/specs/network-sparsity.md §4)."""
    actor = networks.make_actor(2, 1, Architecture(128, 1, "relu", True, "simba"))

    def function(key, points):
        return actor.apply(actor.init(key), points)[:, 0]

    score = jax.jit(lambda key: simplicity_score(function, key, inits=20))(jax.random.key(0))
    assert float(score) == pytest.approx(6.3, abs=0.3)
