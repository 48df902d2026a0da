"""The episode's time as an input."""

import jax
import numpy as np
import pytest
from fake_host_envs import Counter, Endless

from mst_jax import envs
from mst_jax.envs import Observation, host_task
from mst_jax.envs.suites import probe
from mst_jax.envs.timed import with_time

LENGTH = Counter.spec.episode_length  # 8


def host(time):
    return with_time(host_task(Counter.spec, Counter), time)


def times_of(steps):
    """The last entries of what is acted on and of what was reached, and where episodes end."""
    acted = np.stack([step.observation[..., -1] for step in steps])
    reached = np.stack([step.next_observation[..., -1] for step in steps])
    return acted, reached, np.stack([step.over for step in steps])


@pytest.mark.parametrize(("time", "lag"), [("exact", 0), ("published", 1)])
def test_it_counts_the_steps_of_the_episode(time, lag):
    with host(time).vector([(0, 0), (0, 1)]) as env:
        first = env.reset()
        steps = [env.step(np.zeros((2, 2), np.float32)) for _ in range(30)]
    assert (first[:, -1] == -0.5).all()
    acted, reached, over = times_of(steps)
    count = np.zeros(2, int)
    for number in range(30):
        count += 1
        np.testing.assert_allclose(reached[number], np.maximum(count - lag, 0) / LENGTH - 0.5)
        count[over[number]] = 0
        np.testing.assert_allclose(acted[number], np.maximum(count - lag, 0) / LENGTH - 0.5)
    assert over.any()


def test_the_rest_of_the_task_is_the_same_and_the_spec_says_so():
    plain = host_task(Counter.spec, Counter)
    spec = host("exact").spec
    assert spec.observation == Observation((4,), unscaled=1)
    actions = np.full((20, 1, 2), 0.1, np.float32)
    with plain.vector([(3, 0)]) as one, host("exact").vector([(3, 0)]) as other:
        np.testing.assert_array_equal(one.reset(), other.reset()[:, :-1])
        for action in actions:
            ours, theirs = other.step(action), one.step(action)
            for name in ("observation", "next_observation"):
                np.testing.assert_array_equal(getattr(ours, name)[:, :-1], getattr(theirs, name))
            assert (ours.reward, ours.over) == (theirs.reward, theirs.over)
    assert envs.check(host("exact"), steps=40) == []
    assert host("off").spec == plain.spec


def test_going_on_from_a_snapshot_keeps_the_time():
    action = np.full((1, 2), 0.1, np.float32)
    with host("exact").vector([(0, 0)]) as env:
        env.reset()
        for _ in range(2):
            shown = env.step(action).observation
        snapshot = env.snapshot()
        rest = [env.step(action).observation for _ in range(9)]
    with host("exact").vector([(0, 0)]) as env:
        np.testing.assert_array_equal(env.restore(snapshot), shown)
        np.testing.assert_array_equal([env.step(action).observation for _ in range(9)], rest)
    with host_task(Counter.spec, Counter).vector([(0, 0)]) as plain:
        plain.reset()
        with (
            host("exact").vector([(0, 0)]) as env,
            pytest.raises(ValueError, match="without a time"),
        ):
            env.restore(plain.snapshot())


def test_a_jax_environment_has_the_same_times():
    env = with_time(probe.constant_reward_truncated(length=5).env)
    state, first = env.reset(jax.random.key(0))
    actions = np.zeros((12, 1), np.float32)
    state, steps = jax.lax.scan(env.step, state, actions)
    np.testing.assert_allclose(first, [1, -0.5])
    reached = np.array([0.2, 0.4, 0.6, 0.8, 1.0]) - 0.5
    np.testing.assert_allclose(steps.next_observation[:10, -1], np.tile(reached, 2), atol=1e-6)
    acted = np.array([0.2, 0.4, 0.6, 0.8, 0.0]) - 0.5
    np.testing.assert_allclose(steps.observation[:10, -1], np.tile(acted, 2), atol=1e-6)
    assert int(state.errors) == 0
    assert envs.check(env, steps=40) == []


def test_make_gives_the_time_to_any_task():
    plain = envs.make("probe:point").spec
    timed = envs.make("probe:point", with_time="published").spec
    assert timed == plain._replace(observation=Observation((5,), unscaled=1))
    with pytest.raises(ValueError, match="time limit, and dmc:lqr-lqr_2_1 has none: leave it off"):
        envs.make("dmc:lqr-lqr_2_1", with_time="exact")


def test_what_has_no_time_is_refused_in_one_line():
    with pytest.raises(ValueError, match="fake:endless has none: leave it off"):
        with_time(host_task(Endless.spec, Endless))
    with pytest.raises(ValueError, match="with_time='yes' is none of off, exact, published"):
        host("yes")
    pictures = Counter.spec._replace(observation=Observation((8, 8, 3), "uint8"))
    with pytest.raises(ValueError, match="flat observations, and fake:counter shows others"):
        with_time(host_task(pictures, Counter))
    with pytest.raises(ValueError, match="fake:counter shows others: leave it off"):
        with_time(host_task(Counter.spec._replace(observation=3), Counter))
