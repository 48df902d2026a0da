"""Pure-JAX environments that become non-finite lose a step and begin their next episode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faulty_simulation import EPISODE, FAULTS, LENGTH, STEP, key_of, make

from mst_jax.envs import vector_spec

NUMBER = (EPISODE * LENGTH) + STEP - 1  # of the step that is lost; before it nothing terminates
HEALTHY = len(FAULTS)  # the lane that meets nothing


def rollout(lazy, keys):
    env = make(lazy)

    def one(key, actions):
        state, first = env.reset(key)
        return first, jax.lax.scan(env.step, state, actions)

    actions = jax.random.uniform(jax.random.key(5), (len(keys), 40, 2), minval=-0.5, maxval=0.5)
    first, (state, steps) = jax.jit(jax.vmap(one))(keys, actions)
    return np.asarray(first), state, jax.tree.map(np.asarray, steps), actions


@pytest.fixture(scope="module", params=[False, True], ids=["select", "lazy"])
def rollouts(request):
    """All faults in one batch with a healthy lane, and a batch of healthy lanes."""
    healthy = jax.random.key(0)
    with_faults = jnp.stack([*map(key_of, FAULTS), healthy])
    without = jnp.stack([jax.random.key(seed) for seed in range(len(FAULTS))] + [healthy])
    return rollout(request.param, with_faults), rollout(request.param, without)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_one_step_and_its_episode(rollouts, fault):
    """Fault A5 for pure-JAX environments: flagged by select inside the step."""
    (_, state, steps, actions), _ = rollouts
    lane = FAULTS.index(fault)
    number = EPISODE * LENGTH if fault == "NaN at the start" else NUMBER
    lost = np.flatnonzero(steps.lost[lane])
    assert lost.tolist() == [number]
    assert int(state.errors[lane]) == 1
    assert steps.reward[lane, number] == 0
    assert steps.truncated[lane, number]
    assert not steps.terminated[lane].any()
    before = steps.observation[lane, number - 1]
    np.testing.assert_array_equal(steps.next_observation[lane, number], before)
    if fault == "NaN at the start":  # the last finite observation is that of the episode before
        np.testing.assert_array_equal(before, steps.next_observation[lane, number - 1])
    fresh = jax.random.uniform(jax.random.fold_in(key_of(fault), EPISODE + 1), (2,))
    np.testing.assert_array_equal(steps.observation[lane, number], [*fresh, 0])
    ends = np.flatnonzero(steps.truncated[lane])
    later = ends[ends > number] - number
    np.testing.assert_array_equal(later, LENGTH * np.arange(1, len(later) + 1))
    paid = np.delete(steps.reward[lane], number)
    np.testing.assert_allclose(paid, np.delete(1 + actions[lane, :, 0], number), rtol=1e-6)


def test_nothing_that_is_handed_out_is_non_finite_and_others_do_not_notice(rollouts):
    (first, state, steps, _), (_, clean_state, clean, _) = rollouts
    assert np.isfinite(first).all()
    assert all(np.isfinite(field).all() for field in steps)
    assert np.isfinite(state.observation).all()
    for mine, theirs in zip(steps, clean, strict=True):
        np.testing.assert_array_equal(mine[HEALTHY], theirs[HEALTHY])
    assert clean_state.errors.sum() == 0
    assert not clean.lost.any()


def test_a_run_may_begin_with_a_start_that_fails():
    """Zeros stand for an observation before there was any."""
    from mst_jax.envs.device.episodic import Simulation, episodic

    start = lambda key: jnp.full(2, jnp.nan)  # noqa: E731
    advance = lambda world, action: (world, jnp.ones(()), jnp.zeros((), bool))  # noqa: E731
    env = episodic(vector_spec("fake:nan", 2, 1, None, 1), Simulation(start, lambda w: w, advance))
    state, observation = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(observation, [0, 0])
    for number in range(1, 4):
        state, step = env.step(state, jnp.zeros(1))
        assert step.lost
        assert int(state.errors) == int(state.episode) == number
        np.testing.assert_array_equal(step.observation, [0, 0])
        np.testing.assert_array_equal(step.next_observation, [0, 0])
