"""The squashed Gaussian and the running statistics against float64 references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from small_runs import small_config

from mst_jax.agents import make_agent
from mst_jax.agents.parts import tanh_gaussian
from mst_jax.agents.parts.running_statistics import empty_statistics, normalised, observed
from mst_jax.program.cache import kept_task


def reference(mean, raw, noise):
    """Log-density of tanh(u) in float64, from SciPy's normal and log sech^2 by logaddexp."""
    mean, raw, noise = (np.asarray(x, np.float64) for x in (mean, raw, noise))
    log_std = -10 + 6 * (1 + np.tanh(raw))
    u = mean + np.exp(log_std) * noise
    log_slope = 2 * (np.log(2) - np.logaddexp(u, -u))
    return np.sum(stats.norm.logpdf(u, mean, np.exp(log_std)) - log_slope, axis=-1)


def test_log_probability_against_float64():
    rng = np.random.default_rng(0)
    mean, raw, noise = rng.normal(size=(3, 500, 4)).astype(np.float32)
    action, actual = tanh_gaussian.sample(2 * mean, raw, noise)
    np.testing.assert_allclose(actual, reference(2 * mean, raw, noise), rtol=1e-4, atol=1e-3)
    assert np.abs(action).max() <= 1


@pytest.mark.parametrize("mean", [5.0, -9.0, 20.0, -60.0])
def test_log_probability_in_the_saturated_tails(mean):
    """There tanh is +-1 to all digits, and log(1 - tanh^2) would be -inf."""
    mean, raw = np.full((1, 2), mean, np.float32), np.full((1, 2), 0.3, np.float32)
    noise = np.array([[0.5, -1.5]], np.float32)
    _, actual = tanh_gaussian.sample(mean, raw, noise)
    np.testing.assert_allclose(actual, reference(mean, raw, noise), rtol=1e-5)
    slope = jax.grad(lambda m: tanh_gaussian.sample(m, raw, noise)[1].sum())(jnp.asarray(mean))
    # d/du of -log(1 - tanh(u)^2) is 2 tanh(u)
    np.testing.assert_allclose(slope, 2 * np.sign(mean), rtol=2e-3)


def test_log_std_stays_in_its_range():
    bounds = tanh_gaussian.bounded_log_std(jnp.array([-50.0, 0.0, 50.0]))
    np.testing.assert_allclose(bounds, [-10.0, -4.0, 2.0], atol=1e-6)


def test_density_integrates_to_one():
    mean, raw = jnp.full((20_001, 1), 0.3), jnp.full((20_001, 1), 0.55)
    u = np.linspace(-8, 9, 20_001)[:, None]
    std = np.exp(float(tanh_gaussian.bounded_log_std(raw[0, 0])))
    action, log_p = tanh_gaussian.sample(mean, raw, jnp.asarray((u - 0.3) / std, jnp.float32))
    assert np.trapezoid(np.exp(np.asarray(log_p, np.float64)), np.asarray(action)[:, 0]) == (
        pytest.approx(1.0, abs=2e-3)
    )


def folded(observations):
    """Statistics after all observations (T, O), one at a time."""
    start = empty_statistics(observations.shape[1])
    step = lambda s, x: (observed(s, x[None]), None)  # noqa: E731
    return jax.jit(lambda x: jax.lax.scan(step, start, x)[0])(jnp.asarray(observations))


@pytest.mark.parametrize("steps", [1, 2, 5, 200_000])
def test_statistics_against_float64(steps):
    """Offsets far above the spread, where a plain float32 mean and variance go wrong."""
    rng = np.random.default_rng(steps)
    scale, offset = np.array([1.0, 0.01, 30.0]), np.array([0.0, 10.0, -500.0])
    seen = (offset + scale * rng.normal(size=(steps, 3))).astype(np.float32)
    exact = seen.astype(np.float64)
    # The prior: mean 0 and variance 1 with the weight of 1e-4 observations.
    total = steps + 1e-4
    mean = exact.sum(0) / total
    between = 1e-4 * mean**2 + ((exact - mean) ** 2).sum(0)
    variance = (1e-4 + between) / total
    result = folded(seen)
    np.testing.assert_allclose(result.mean, mean, rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(result.variance, variance, rtol=2e-3 if steps < 10 else 2e-4)
    assert int(result.count) == steps
    np.testing.assert_allclose(
        normalised(result, jnp.asarray(seen[0])),
        (exact[0] - mean) / np.sqrt(variance + 1e-8),
        atol=0.02,
    )


@pytest.mark.parametrize("size", [1, 3, 32])
def test_batches_count_as_their_observations(size):
    rng = np.random.default_rng(size)
    seen = (np.array([0.0, -500.0]) + rng.normal(size=(40, size, 2))).astype(np.float32)
    result = jax.jit(
        lambda x: jax.lax.scan(lambda s, o: (observed(s, o), None), empty_statistics(2), x)[0]
    )(seen)
    exact, total = seen.reshape(-1, 2).astype(np.float64), 40 * size + 1e-4
    mean = exact.sum(0) / total
    variance = (1e-4 + 1e-4 * mean**2 + ((exact - mean) ** 2).sum(0)) / total
    np.testing.assert_allclose(result.mean, mean, rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(result.variance, variance, rtol=2e-4)
    assert int(result.count) == 40 * size


def test_a_plain_float32_mean_would_fail_this():
    """What the compensation is for: 200,000 steps of a small drift on a large mean."""
    seen = (1000 + np.linspace(0, 1, 200_000)[:, None]).astype(np.float32)
    plain = np.float32(0)
    for index, x in enumerate(seen[:, 0]):
        plain += (x - plain) / np.float32(index + 1)
    exact = seen.astype(np.float64).mean()
    ours = float(folded(seen).mean[0])
    assert abs(ours - exact) < 1e-4 < abs(float(plain) - exact) + 1e-4
    assert abs(ours - exact) <= abs(float(plain) - exact)


def test_statistics_before_any_observation_change_nothing():
    x = jnp.array([0.5, -2.0])
    np.testing.assert_allclose(normalised(empty_statistics(2), x), x, rtol=1e-6)


def test_trailing_entries_are_left_alone_and_the_others_as_without_them():
    rng = np.random.default_rng(0)
    seen = rng.normal(3, 2, (40, 2, 4)).astype(np.float32)
    statistics, plain = empty_statistics(3), empty_statistics(3)
    for batch in seen:
        statistics, plain = observed(statistics, batch), observed(plain, batch[:, :3])
    for mine, theirs in zip(jax.tree.leaves(statistics), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    shown = normalised(statistics, jnp.asarray(seen[0]))
    np.testing.assert_array_equal(shown[:, 3], seen[0, :, 3])
    np.testing.assert_array_equal(shown[:, :3], normalised(plain, seen[0, :, :3]))


@pytest.mark.parametrize("name", ["ddpg", "sac", "td3"])
def test_agents_that_normalise_leave_the_time_alone(name):
    task = kept_task("probe:point", with_time="exact").spec
    agent = make_agent(name, small_config(agent=name), task, 500)
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    assert shapes.statistics.mean.shape == (4,)
    state = shapes.replace(statistics=empty_statistics(4))
    batch = np.array([[1, 2, 3, 4, -0.5], [1, 2, 3, 6, 0.5]], np.float32)
    state = agent.observe(state, batch, np.ones(2, bool))
    np.testing.assert_allclose(state.statistics.mean, [1, 2, 3, 5], rtol=1e-3)


def test_vmapped_statistics_equal_looped_ones():
    rng = np.random.default_rng(1)
    seen = jnp.asarray(rng.normal(size=(3, 50, 2)), jnp.float32)
    together = jax.vmap(
        lambda x: jax.lax.scan(lambda s, o: (observed(s, o[None]), None), empty_statistics(2), x)[0]
    )(seen)
    for index in range(3):
        alone = folded(np.asarray(seen[index]))
        np.testing.assert_allclose(together.mean[index], alone.mean, rtol=1e-6)
        np.testing.assert_allclose(together.variance[index], alone.variance, rtol=1e-6)
