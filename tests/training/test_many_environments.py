"""Several environments of each seed: stepped together, stored apart, learned from once a step."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import (
    advance,
    metrics_without_wall_clock,
    resumed_exactly,
    small_config,
    small_settings,
    start_run,
)

from mst_jax import envs
from mst_jax.agents import Memory, make_agent
from mst_jax.program.arrays import loop_from_arrays, loop_to_arrays
from mst_jax.program.drivers import make_driver
from mst_jax.runs.arrays import fingerprint
from mst_jax.runs.config_file import read_settings, write_settings
from mst_jax.training import plan_run
from mst_jax.training.jobs import prepare
from mst_jax.training.memory import describe_memory, replay_slots

SETTINGS = small_settings(
    agent="ddpg", config=small_config("mst", "ddpg"), environments=3, steps=120, eval_every=120
)


def test_every_environment_is_stored_and_counted_as_it_was_stepped():
    """Two seeds of three environments, against a plain loop over the environments."""
    env = envs.make("probe:point")
    config = small_config("dense", "ddpg")
    agent = make_agent("ddpg", config, env.spec, 1_000)
    driver, run = make_driver(agent, env, [0, 1], 3 * 600, np.float32, environments=3)
    state, observation = jax.device_get((run.environment, run.observation))
    assert len(np.unique(observation, axis=0)) == 6, "every environment starts elsewhere"
    assert len(np.unique(run.action, axis=0)) == 6, "and explores by itself"
    step = jax.jit(jax.vmap(env.step))
    running, returns, episodes = np.zeros(6), np.zeros(2), np.zeros(2, int)
    expected = [[] for _ in range(6)]
    for _ in range(250):
        # A constant force drives each environment out, after a time that depends on its start.
        action = np.full((6, 2), 0.3, np.float32)
        run = run.replace(action=jnp.asarray(action))
        state, timestep = jax.device_get(step(state, action))
        ended = timestep.terminated | timestep.truncated
        running += timestep.reward
        for index in range(6):
            expected[index].append((observation[index], action[index], timestep.reward[index]))
            if ended[index]:
                expected[index].append((timestep.next_observation[index], 0 * action[index], 0))
                returns[index // 3] += running[index]
                episodes[index // 3] += 1
                running[index] = 0
        observation = timestep.observation
        run = driver.advance(run, 1, lambda: False, lambda _: None)
    assert len({len(slots) for slots in expected}) > 1, "episodes end at different times"
    assert run.totals.episodes.tolist() == episodes.tolist()
    np.testing.assert_allclose(run.totals.returns, returns, rtol=1e-5)
    np.testing.assert_allclose(run.episode_return, running, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(run.observation, observation)
    for index, slots in enumerate(expected):
        seed, first = index // 3, (index % 3) * 600
        rows = np.array([np.concatenate(slot[:2]) for slot in slots])
        own = slice(first, first + len(slots))
        np.testing.assert_allclose(run.buffer.fields["rows"][seed, own], rows, rtol=1e-5, atol=1e-6)
        rewards = [slot[2] for slot in slots]
        np.testing.assert_allclose(run.buffer.reward[seed, own], rewards, rtol=1e-5, atol=1e-6)
    assert int(run.clock.step) == 250


@pytest.mark.slow
def test_a_seed_among_others_steps_as_alone():
    """Start states, random actions and what is stored in the warm-up: bit-equal."""
    env, config = envs.make("probe:point"), small_config("dense", "ddpg")
    ends = []
    for seeds in ([0, 1], [1]):
        _, _, run = start_run(env, config, seeds, 40, agent="ddpg", environments=2)
        ends.append((jax.tree.map(lambda leaf: leaf[-1], run.buffer), run.action[-2:]))
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["probe:point", "dmc:cartpole-swingup"])
def test_going_back_to_a_snapshot_repeats_what_followed(task):
    """In the middle of episodes, on the device and on the host, while learning."""
    task, config = envs.make(task), small_config("mst", "ddpg")
    agent = make_agent("ddpg", config, task.spec, 1_000)
    driver, run = make_driver(agent, task, [0, 1], 1_000, np.float32, environments=2)
    assert len(np.unique(run.observation, axis=0)) == 4
    run = advance(driver, run, 80)
    arrays, snapshot = loop_to_arrays(run), driver.snapshot()
    like = jax.eval_shape(lambda: run)
    ends = []
    for _ in range(2):
        run = driver.place(loop_from_arrays(arrays, like))
        driver.restore(snapshot)
        ends.append(fingerprint(loop_to_arrays(advance(driver, run, 30))))
    driver.close()
    assert ends[0] == ends[1] != fingerprint(arrays)


@pytest.mark.slow
def test_a_stopped_run_is_resumed_exactly(tmp_path, monkeypatch):
    rows = metrics_without_wall_clock(resumed_exactly(SETTINGS, tmp_path, monkeypatch, 75))
    training = [row for row in rows["seed_1"] if row["kind"] == "train"]
    assert [row["transitions"] for row in training] == [3 * row["step"] for row in training]


def test_sizes_and_what_is_refused(tmp_path):
    """Slots by hand: 120 steps can fill 242 of each of three rings."""
    task, agent = prepare(SETTINGS)
    spec = task.spec
    assert replay_slots(SETTINGS, agent, spec) == 3 * 242
    assert replay_slots(SETTINGS, agent._replace(memory=Memory(500)), spec) == 498
    assert "2 seeds x 726 slots for 3 environments" in describe_memory(agent, spec, SETTINGS)
    config = small_config("mst", "ddpg", buffer_size=8, batch_size=4)
    with pytest.raises(ValueError, match="buffer_size=8 is too small for environments=3, which"):
        plan_run(small_settings(agent="ddpg", config=config, environments=3), tmp_path)
    with pytest.raises(ValueError, match="environments=0 must be at least 1"):
        small_settings(environments=0).validate()


def test_a_run_from_before_has_one_environment(tmp_path):
    write_settings(tmp_path, SETTINGS)
    assert read_settings(tmp_path) == SETTINGS
    raw = json.loads((tmp_path / "config.json").read_text())
    del raw["environments"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_settings(tmp_path).environments == 1
