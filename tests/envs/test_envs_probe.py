"""Probe environments: exact values, flags, restarts, fresh starts, vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax import envs
from mst_jax.envs.suites import probe

DISCOUNT = 0.9
WITHOUT = {"point", "picture_motion"}  # no values; values of the mean of what may follow
WITH_VALUES = [name for name in probe.PROBES if name not in WITHOUT]


def best_action(name, observation):
    best = {"action_reward": probe.BEST_ACTION, "matching_reward": observation[..., 0] / 2}
    if name == "picture_motion":
        best[name] = motion(observation) / 2
    if name == "catch":
        ball = (observation[:-1, :, 0] > 0).any(axis=0).argmax()
        return (1 + jnp.sign(ball - (observation[-1, :, 0] > 0).argmax())).astype(jnp.int32)
    return jnp.atleast_1d(best.get(name, 0.0)).astype(jnp.float32)


def motion(pictures):
    """By how many bars' widths, +1 or -1, the bar moved around; 0 where the two are the same."""
    before, now = (pictures[0, ::2, part].argmax() for part in (0, 1))
    places = pictures.shape[1] // 2
    return (now - before + places // 2) % places - places // 2


@functools.cache
def rollout(name, steps=50, action=None):
    """Steps 4 vmapped copies; returns observations [4, steps, O] and Timesteps [4, steps, ...]."""
    environment = envs.make(f"probe:{name}")

    def one(key):
        def step(carry, _):
            state, observation = carry
            chosen = best_action(name, observation) if action is None else jnp.array(action)
            chosen = jnp.broadcast_to(chosen, environment.spec.action.shape)
            state, timestep = environment.step(state, chosen)
            return (state, timestep.observation), (observation, timestep)

        return jax.lax.scan(step, environment.reset(key), length=steps)[1]

    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(4))
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))


@pytest.mark.parametrize("name", WITH_VALUES)
def test_values_solve_bellmans_equation_where_only_termination_ends_the_sum(name):
    value = probe.PROBES[name]().value
    observation, step = rollout(name)
    target = step.reward + DISCOUNT * ~step.terminated * value(step.next_observation, DISCOUNT)
    np.testing.assert_allclose(value(observation, DISCOUNT), target, rtol=2e-5)


@pytest.mark.parametrize(
    ("name", "observation", "expected"),
    [
        ("constant_reward", [1.0], (1 - 0.9**10) / 0.1),  # 6.513
        ("constant_reward", [0.2], 1.9),  # two steps left
        ("constant_reward_truncated", [1.0], 10.0),
        ("delayed_reward", [1.0, 1.0], 0.81),
        ("delayed_reward", [-1.0, 0.0], -1.0),
        ("action_reward", [1.0], 10.0),
        ("observation_reward", [1.0], 1 / 1.9),
        ("observation_reward", [-1.0], -1 / 1.9),
        ("matching_reward", [-1.0], 10.0),
    ],
)
def test_values_by_hand(name, observation, expected):
    value = probe.PROBES[name]().value(np.array(observation), DISCOUNT)
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["constant_reward", "delayed_reward"])
def test_values_are_the_discounted_sums_of_finished_episodes(name):
    length = envs.make(f"probe:{name}").spec.episode_length
    observation, step = rollout(name)
    total = (step.reward[:, :length] * DISCOUNT ** np.arange(length)).sum(axis=1)
    value = probe.PROBES[name]().value(observation[:, 0], DISCOUNT)
    np.testing.assert_allclose(value, total, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "action", "lost"), [("action_reward", -0.5, 1.0), ("matching_reward", 0.0, 0.25)]
)
def test_a_worse_action_is_paid_less(name, action, lost):
    np.testing.assert_allclose(rollout(name)[1].reward, 1, rtol=1e-6)
    np.testing.assert_allclose(rollout(name, action=action)[1].reward, 1 - lost, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "length", "flag"),
    [
        ("constant_reward", 10, "terminated"),
        ("constant_reward_truncated", 20, "truncated"),
        ("delayed_reward", 3, "terminated"),
        ("action_reward", 20, "truncated"),
        ("observation_reward", 20, "truncated"),
        ("matching_reward", 20, "truncated"),
    ],
)
def test_episodes_end_on_time_by_the_right_flag(name, length, flag):
    _, step = rollout(name)
    due = np.arange(1, 51) % length == 0
    other = {"terminated": "truncated", "truncated": "terminated"}[flag]
    np.testing.assert_array_equal(getattr(step, flag), np.tile(due, (4, 1)))
    assert not getattr(step, other).any()
    assert envs.make(f"probe:{name}").spec.episode_length == length


@pytest.mark.parametrize("name", probe.PROBES)
def test_shapes_types_and_what_is_observed_at_an_end(name):
    spec = envs.make(f"probe:{name}").spec
    observation, step = rollout(name)
    assert observation.shape == step.observation.shape == (4, 50, *spec.observation.shape)
    assert step.next_observation.shape == observation.shape
    shown = np.dtype(spec.observation.dtype)
    kinds = [shown, np.float32, np.bool_, np.bool_, shown, np.bool_, np.bool_]
    assert [field.dtype for field in step] == kinds
    ended = step.terminated | step.truncated
    same = step.observation == step.next_observation
    assert same[~ended].all()


def test_a_bar_moves_in_pictures_as_written():
    """The first pictures of an episode are alike, and each direction has as many episodes."""
    spec = envs.make("probe:picture_motion").spec
    observation, step = rollout("picture_motion", steps=200)
    assert (spec.observation.history, spec.observation.fill) == (2, "repeat")
    assert set(np.unique(observation)) == {0, 255}
    assert (observation == observation[..., :1, :, :]).all(), "bars stand upright"
    assert ((observation == 255).sum(axis=(-3, -2)) == 12 * 2).all()
    start = np.arange(200) % 20 == 0
    moves = np.array([[motion(shown) for shown in own] for own in observation])
    assert not moves[:, start].any()
    directions = moves[:, ~start].reshape(4, 10, 19)
    assert (directions == directions[..., :1]).all()
    assert {-1, 1} == set(directions.ravel().tolist())
    later = ~start & (np.arange(200) % 20 != 1)
    np.testing.assert_array_equal(
        observation[:, later, ..., 0], observation[:, np.roll(later, -1), ..., 1]
    )
    np.testing.assert_allclose(step.reward[:, ~start], 1)
    np.testing.assert_allclose(step.reward[:, start], 0.75)
    value = probe.picture_motion().value(observation, DISCOUNT)
    np.testing.assert_allclose(value, np.where(start, 9.75, 10.0)[None].repeat(4, axis=0))


@pytest.mark.parametrize("action", [None, 0, 1, 2])
def test_a_ball_falls_and_is_caught_by_a_paddle_in_its_column(action):
    """Always the best action; always left, stay or right: the value says what was paid."""
    observation, step = rollout("catch", steps=90, action=action)
    balls, paddles = observation[:, :, :-1, :, 0], observation[:, :, -1, :, 0]
    assert set(np.unique(observation)) == {0, 255}
    assert (balls.reshape(4, 90, -1).sum(axis=2) == 255).all()
    assert (paddles.sum(axis=2) == 255).all()
    age = np.arange(90) % 9
    np.testing.assert_array_equal(balls.any(axis=3).argmax(axis=2), np.tile(age, (4, 1)))
    column, paddle = balls.any(axis=2).argmax(axis=2), paddles.argmax(axis=2)
    assert (column.reshape(4, 10, 9) == column.reshape(4, 10, 9)[..., :1]).all()
    assert set(column.ravel().tolist()) == {0, 1, 2, 3, 4}
    if action is not None:
        at = np.clip(2 + (action - 1) * age, 0, 4)
        np.testing.assert_array_equal(paddle, np.tile(at, (4, 1)))
    ended = age == 8
    np.testing.assert_array_equal(step.terminated, np.tile(ended, (4, 1)))
    last = step.next_observation[..., -1, :, 0][:, ended]
    caught = (last > 0).sum(axis=-1) == 1  # ball and paddle in one place
    np.testing.assert_array_equal(step.reward[:, ended], np.where(caught, 1, -1))
    assert not step.reward[:, ~ended].any()
    value = probe.catch().value(observation, DISCOUNT)
    going_on = np.where(ended, 0, probe.catch().value(step.next_observation, DISCOUNT))
    bound = step.reward + DISCOUNT * going_on
    assert (bound <= value + 1e-6).all()
    assert caught.all() or action is not None


def test_a_ball_out_of_reach_is_worth_minus_one():
    picture = np.zeros((10, 5, 1), np.uint8)
    picture[7, 0], picture[9, 3] = 255, 255  # three columns away, two steps to fall
    assert probe.catch().value(picture, 0.9) == pytest.approx(-0.9)
    picture[9] = np.roll(picture[9], -1, axis=0)
    assert probe.catch().value(picture, 0.9) == pytest.approx(0.9)


def test_the_final_observation_is_kept():
    _, step = rollout("constant_reward")
    assert step.next_observation[0, 9] == 0  # nothing left
    assert step.observation[0, 9] == 1  # the next episode
    _, step = rollout("delayed_reward")
    np.testing.assert_array_equal(step.next_observation[:, 2, 1], np.full(4, -0.5, np.float32))
    np.testing.assert_array_equal(step.observation[:, 2, 1], np.ones(4, np.float32))


def test_lengths_are_settings():
    value = probe.constant_reward(length=3).value
    assert value(np.array([1.0]), DISCOUNT) == pytest.approx(1 + 0.9 + 0.81)
    environment = probe.delayed_reward(delay=5).env
    state, observation = environment.reset(jax.random.key(0))
    for number in range(6):
        state, step = environment.step(state, jnp.zeros(1))
        assert float(step.reward) == (observation[0] if number == 5 else 0)
        assert bool(step.terminated) == (number == 5)


def point_start(key, episode):
    """First observation of an episode of `probe:point`, by its documented rule."""
    position = jax.random.uniform(jax.random.fold_in(key, episode), (2,), minval=-1, maxval=1)
    return np.concatenate([position, np.zeros(2)]).astype(np.float32)


def test_every_episode_starts_afresh_from_its_own_number():
    environment = envs.make("probe:point")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(4))
    observation, step = rollout("point", steps=250, action=0.0)
    starts = [observation[:, 0], step.observation[:, 99], step.observation[:, 199]]
    assert step.truncated[:, [99, 199]].all()
    assert step.truncated.sum() == 8
    for episode, start in enumerate(starts):
        np.testing.assert_array_equal(start, [point_start(key, episode) for key in keys])
    assert len(np.unique(np.concatenate(starts), axis=0)) == 12
    alone = jax.jit(environment.reset)(keys[2])[1]
    np.testing.assert_array_equal(alone, observation[2, 0])  # bit-equal in other company


def test_point_moves_as_written_and_terminates_at_the_wall():
    environment = envs.make("probe:point")
    state, observation = environment.reset(jax.random.key(1))
    step = jax.jit(environment.step)
    position, velocity = np.array(observation[:2], np.float64), np.zeros(2)
    for _ in range(100):
        state, timestep = step(state, jnp.ones(2))
        velocity += 0.1 * (2 - velocity)
        position += 0.1 * velocity
        expected = np.concatenate([position, velocity])
        np.testing.assert_allclose(timestep.next_observation, expected, rtol=1e-5)
        distance = np.hypot(*position)
        np.testing.assert_allclose(timestep.reward, 1 - distance / 2, rtol=1e-5, atol=1e-6)
        assert not timestep.truncated
        if timestep.terminated:
            break
    assert np.abs(position).max() > 1.5
    assert (int(state.episode), int(state.steps)) == (1, 0)


def test_a_step_holds_no_conditional():
    environment = envs.make("probe:point")
    state, _ = environment.reset(jax.random.key(0))
    program = str(jax.make_jaxpr(environment.step)(state, jnp.zeros(2)))
    assert "cond[" not in program
    assert "select_n" in program
