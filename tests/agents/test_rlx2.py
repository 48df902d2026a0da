"""RLx2's settings (docs/specs/rlx2.md): targets by hand, the delay, and what replay lets go."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import POINT, resumed_exactly, small_config, small_settings

from mst_jax import replay
from mst_jax.agents import Clock, Review, make_agent
from mst_jax.agents.actor_critic.sac import build_sac
from mst_jax.agents.parts import losses
from mst_jax.envs import Continuous, Observation
from mst_jax.program.drivers import make_driver
from mst_jax.program.reviewing import make_review, policy_distance
from mst_jax.recipes import make_config


def test_a_target_of_several_steps_by_hand():
    returns, bootstrap = losses.n_step_return(
        jnp.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]),
        jnp.array([[False, False, False], [False, True, False]]),
        0.5,
    )
    values = jnp.array([[8.0, 6.0], [8.0, 6.0]])
    target = losses.n_step_target(returns, bootstrap, values, jnp.array([2.0, 2.0]))
    # 1 + 0.5 * 2 + 0.25 * 4 + 0.125 * (6 + 2), and without what follows the termination
    assert target.tolist() == [4.0, 2.0]


def filled_buffer(seeds=1, capacity=40, steps=30, environments=1):
    """Episodes of ten steps; reward and action tell the step."""
    layout = replay.Layout(
        Observation((1,)), Continuous(1), 3, capacity, seeds=seeds, environments=environments
    )
    buffer, rows = replay.create(layout), seeds * environments
    insert = jax.jit(replay.insert)
    for step in range(steps):
        at = np.full((rows, 1), step, np.float32)
        no = np.zeros(rows, bool)
        buffer = insert(buffer, at, at / 100, at[:, 0], no, no | (step % 10 == 9), at + 1)
    return buffer


def test_batches_have_one_step_until_the_delay_is_over():
    config = small_config("rlx2", discount=0.5, n_step_delay=3, normalize_observations=False)
    core = build_sac(dataclasses.replace(config, batch_size=8), POINT.spec, 10_000).core
    assert (core.config.n_step, core.config.updates_per_step) == (3, 2)
    view = jax.tree.map(lambda leaf: leaf[0], replay.view(filled_buffer()))
    state = jax.eval_shape(core.init, jax.random.key(0))
    draw = jax.jit(lambda update: core.batches(state, view, jax.random.key(1), clock(update)))
    for call, first_late in ((0, None), (1, 1), (2, 0)):
        batch = draw(jnp.int32(call))
        late = np.arange(2)[:, None] >= (2 if first_late is None else first_late)
        step = np.asarray(batch.observation)[..., 0]
        assert (step % 10 < 8).all(), "windows of three steps end within their episodes"
        three = step + 0.5 * (step + 1) + 0.25 * (step + 2)
        np.testing.assert_allclose(batch.reward, np.where(late, three, step), rtol=1e-6)
        np.testing.assert_allclose(batch.bootstrap, np.where(late, 0.125, 0.5) + 0 * step)
        ahead = np.asarray(batch.next_observation)[..., 0] - step
        np.testing.assert_array_equal(ahead, np.where(late, 3, 1) + 0 * step)


def clock(update):
    return Clock(jnp.int32(100), update)


def test_one_step_agents_have_the_batches_that_they_had():
    config = small_config("mst", normalize_observations=False)
    core = build_sac(config, POINT.spec, 10_000).core
    view = jax.tree.map(lambda leaf: leaf[0], replay.view(filled_buffer()))
    state = jax.eval_shape(core.init, jax.random.key(0))
    shapes = jax.eval_shape(lambda: core.batches(state, view, jax.random.key(1), clock(0)))
    assert shapes.bootstrap is None


@pytest.mark.parametrize("environments", [1, 2])
def test_the_oldest_tenth_goes_and_is_not_sampled_again(environments):
    buffer = filled_buffer(2, 80, 38, environments)  # the first steps are overwritten
    slots, total = replay.oldest(buffer, 5)
    step = np.asarray(buffer.reward)[0]
    alive = np.asarray(buffer.tree[0])[0] > 0
    expected = np.sort(step[alive[: len(step)]])
    assert total.tolist() == [alive.sum()] * 2
    np.testing.assert_array_equal(step[np.asarray(slots)[0]], expected[:5])
    after = replay.without_oldest(buffer, jnp.array([True, False]))
    left = np.asarray(after.tree[0]) > 0
    gone = int(alive.sum()) // 10
    assert gone >= 2
    np.testing.assert_array_equal(np.sort(step[left[0][: len(step)]]), expected[gone:])
    for level, old in zip(after.tree, buffer.tree, strict=True):
        np.testing.assert_array_equal(level[1], old[1])
    drawn = jax.vmap(lambda v, k: v.sample(k, 500))(
        replay.view(after), jax.random.split(jax.random.key(0), 2)
    )
    assert step[np.asarray(drawn)[0]].min() >= expected[gone]
    assert np.isclose(after.tree[-1][0].sum(), left[0].sum()), "sums are those of the leaves"


def test_fewer_starts_than_asked_for_repeat_the_newest():
    slots, total = replay.oldest(filled_buffer(steps=5), 8)
    assert total.tolist() == [3]
    assert slots[0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]


def test_the_distance_is_of_modes_less_the_policys_own_spread():
    agent = make_agent("ddpg", small_config("dense", "ddpg"), POINT.spec, 1000)
    act = lambda state, o, key, clock: (  # noqa: E731
        state * o + (0.0 if key is None else 0.1 * jax.random.normal(key, o.shape))
    )
    agent = agent._replace(act=act)
    observation = jnp.ones((4000, 1))
    then = 0.2 * observation + 0.1 * jax.random.normal(jax.random.key(1), observation.shape)
    measure = lambda state: policy_distance(  # noqa: E731
        agent, state, observation, then, jax.random.key(2), clock(0)
    )
    assert float(measure(0.2)) < 0.001
    assert float(measure(1.2)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_a_review_lets_go_only_above_distance_and_count():
    agent = make_agent("ddpg", small_config("dense", "ddpg"), POINT.spec, 1000)
    _, run = make_driver(agent, POINT, [0, 1], 100, np.float32)
    shown, taken = run.observation, run.action
    insert, no = jax.jit(replay.insert), np.zeros(len(shown), bool)
    # The first seed's actions are far from any policy's, the second's are what it would do.
    policy = jax.vmap(agent.act, (0, 0, None, None))(run.agent, shown, None, None)
    action = jnp.where(jnp.arange(2)[:, None] == 0, 5.0, policy) + 0.0 * taken
    buffer = run.buffer
    for _ in range(40):
        buffer = insert(buffer, shown, action, no.astype(np.float32), no, no, shown)
    starts = int((buffer.tree[0][0] > 0).sum())
    for fewest, left in ((10, [starts - starts // 10, starts]), (starts, [starts] * 2)):
        memory = agent.memory._replace(review=Review(10, 0.2, fewest))
        review = make_review(agent._replace(memory=memory), 2)
        after = review(jax.tree.map(jnp.copy, dataclasses.replace(run, buffer=buffer)))
        assert (after.buffer.tree[0] > 0).sum(axis=1).tolist() == left


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["sac", "td3"])
def test_a_run_with_all_of_it_resumes_exactly(agent, tmp_path, monkeypatch):
    changes = {"n_step_delay": 50, "review_every": 70, "review_distance": 0.0, "review_fewest": 20}
    moving = {f"{module}__interval": 20 for module in ("critic", "actor")}
    config = small_config("rlx2", agent, **changes, **moving)
    settings = small_settings(agent=agent, config=config, recipe="rlx2")
    resumed_exactly(settings, tmp_path, monkeypatch, 110, 50)


def test_the_recipe_is_the_published_pace():
    config = make_config("td3", "rlx2")
    assert (config.n_step, config.n_step_delay, config.review_every) == (3, 300_000, 10_000)
    for module in (config.critic, config.actor):
        assert (module.regime, module.sparsity) == ("rigl", 0.6)
        assert (module.interval, module.drop_fraction, module.end_fraction) == (10_000, 0.5, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_step": 0}, "n_step=0 must be at least 1"),
        ({"n_step_delay": 5}, "delays nothing with n_step=1"),
        ({"n_step": 100}, "learning_starts=64 must be at least n_step=100"),
        ({"review_every": -1}, "review_every=-1 must not be negative"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        small_config("dense", **changes).validate()
    assert "\n" not in str(error.value)
