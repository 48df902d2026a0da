"""`--stale_actions=1`: environments step while the device learns; nothing else is different."""

import jax
import numpy as np
import pytest
from fake_host_envs import Counter
from small_runs import resumed_exactly, small_config, small_settings
from test_phases import host_task

from mst_jax.agents import make_agent
from mst_jax.program.arrays import loop_from_arrays, loop_to_arrays
from mst_jax.program.drivers import make_driver
from mst_jax.program.step import Half, Phase
from mst_jax.runs.arrays import fingerprint
from mst_jax.training import plan_run

WARM = 26  # steps until learning begins, and a few of it; the next one is followed by learning


@pytest.fixture(scope="module")
def stale():
    """Agent, driver, the arrays of its loop in the middle of learning, and how to read them."""
    agent = make_agent("ddpg", small_config("mst", "ddpg"), Counter.spec, 200)
    agent = agent._replace(learning_starts=20, learn_every=2)
    driver, loop = make_driver(agent, host_task(), [0, 1], 500, np.float32, stale_actions=1)
    like = jax.eval_shape(lambda: loop)
    yield driver, loop_to_arrays(played(driver, loop, WARM)), driver.snapshot(), like
    driver.close()


def played(driver, loop, count):
    return driver.advance(loop, count, lambda: False, lambda _: None)


def test_an_action_is_that_of_the_parameters_before_learning(stale):
    """Bit for bit what a step that does not learn chooses; and learning is that of a usual step."""
    driver, arrays, worlds, like = stale
    driver.restore(worlds)
    loop = loop_from_arrays(arrays, like)
    timestep = driver._env.step(np.clip(np.asarray(loop.action), -1, 1))
    run = driver._programs
    kept = loop_to_arrays(run(Phase.ACT, loop_from_arrays(arrays, like), timestep))
    usual = loop_to_arrays(run(Phase.LEARN, loop_from_arrays(arrays, like), timestep))
    answered, latest = run.start(Half.ANSWER, loop, timestep)
    assert fingerprint({"a": np.array(answered.action)}) == fingerprint({"a": kept["action"]})
    learned = loop_to_arrays(run.start(Half.LEARN, answered, latest, timestep.over))
    assert (learned["action"] != usual["action"]).any(), "learning changes what is chosen"
    for name in usual.keys() - {"action"}:  # two programs round differently in the last digit
        close = {"rtol": 1e-5, "atol": 1e-7} if usual[name].dtype == np.float32 else {"rtol": 0}
        np.testing.assert_allclose(learned[name], usual[name], **close, err_msg=name)


def test_it_resumes_exactly_after_any_step(stale):
    driver, arrays, worlds, like = stale
    driver.restore(worlds)
    whole = played(driver, loop_from_arrays(arrays, like), 12)
    driver.restore(worlds)
    part = played(driver, loop_from_arrays(arrays, like), 5)
    saved, there = loop_to_arrays(part), driver.snapshot()
    played(driver, part, 3)  # what a killed process did and lost
    driver.restore(there)
    resumed = played(driver, loop_from_arrays(saved, like), 7)
    assert fingerprint(loop_to_arrays(resumed)) == fingerprint(loop_to_arrays(whole))


def test_environments_step_before_learning_is_waited_for(stale, monkeypatch):
    driver, arrays, worlds, like = stale
    driver.restore(worlds)
    programs, happened = driver._programs, []

    def told(what, call):
        def listed(*args):
            happened.append(args[0] if what == "start" else what)
            return call(*args)

        return listed

    monkeypatch.setattr(driver._env, "step", told("environments", driver._env.step))
    monkeypatch.setattr(programs, "start", told("start", programs.start))
    monkeypatch.setattr(programs, "wait", told("wait", programs.wait))
    played(driver, loop_from_arrays(arrays, like), 2)
    learns, acts = [Half.ANSWER, "wait", Half.LEARN], [Phase.ACT, "wait"]
    assert happened == ["environments", *learns, "environments", *acts, "wait"]


def test_environments_of_the_devices_program_are_refused(tmp_path):
    with pytest.raises(ValueError, match="environments of probe:point are part of the device's"):
        plan_run(small_settings(stale_actions=1), tmp_path)
    with pytest.raises(ValueError, match="stale_actions=2 is too large: 2 exceeds 1"):
        plan_run(small_settings(stale_actions=2), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_stale_run_resumes_exactly(tmp_path, monkeypatch):
    settings = small_settings("dmc:pendulum-swingup", stale_actions=1)
    resumed_exactly(settings, tmp_path, monkeypatch, 90)
