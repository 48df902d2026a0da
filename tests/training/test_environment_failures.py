"""Runs whose environments fail: what is stored, counted and written, and where they stop."""

import functools
import signal
from types import SimpleNamespace

import faulty_simulation
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_host_envs import Counter, Faulty, Mortal
from small_runs import advance, metrics_without_wall_clock, small_config, small_settings

from mst_jax import envs
from mst_jax.agents import make_agent
from mst_jax.envs.host.vector import WorkerVectorEnv
from mst_jax.program.arrays import loop_to_arrays
from mst_jax.program.drivers import make_driver
from mst_jax.program.evaluation import make_evaluator
from mst_jax.program.step import finish_chunk
from mst_jax.runs.arrays import flatten
from mst_jax.training import jobs, plan_resume, plan_run, train

CONFIG = small_config("mst", "ddpg", learning_starts=20)
FAULTS = ("raises", "NaN observation", "NaN reward", "infinite reward")


def host_task(faults=()):
    """Counters; faults by (seed, environment index, episode, step)."""
    factory = functools.partial(Faulty, dict(faults))
    return envs.HostTask(Counter.spec, functools.partial(WorkerVectorEnv, Counter.spec, factory))


def copied(run):
    return jax.tree.map(jnp.copy, run)


def finite(tree):
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return all(np.isfinite(np.asarray(x)).all() for x in floats)


def of_seed(tree, seed):
    """The part of one of two seeds of all that has the seed axis."""
    return {name: array[seed] for name, array in flatten(tree).items() if array.ndim}


def check_both(agent, fault, clean):
    """Seed 0 met a fault and everything is finite; seed 1 is, to the last bit, as without it."""
    assert finite(fault.replace(environment=None))
    assert np.asarray(fault.healthy).all()
    theirs = of_seed(clean, 1)
    assert len(theirs) > 20
    for name, array in of_seed(fault, 1).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert any((array != of_seed(clean, 0)[n]).any() for n, array in of_seed(fault, 0).items())
    rows = [finish_chunk(agent, copied(run))[1:] for run in (fault, clean)]
    assert finite(rows[0])
    for mine, theirs in zip(*map(jax.tree.leaves, rows), strict=True):
        np.testing.assert_array_equal(np.atleast_1d(mine)[-1], np.atleast_1d(theirs)[-1])


@pytest.fixture(scope="module")
def on_host():
    """One compiled driver: plays 60 steps on a task's environments."""
    agent = make_agent("ddpg", CONFIG, Counter.spec, 200)
    driver, first = make_driver(agent, host_task(), [0, 1], 500, np.float32)

    def play(task):
        driver._env.close()
        driver._env = task.vector([(0, 0), (1, 0)])
        driver.reset()
        return advance(driver, copied(first), 60)

    yield agent, driver, play, play(host_task())
    driver.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_another_seed_does_not_notice_a_fault_on_the_host(on_host, fault):
    """Fault A5, and A4's cause."""
    agent, driver, play, clean = on_host
    run = play(host_task({(0, 0, 3, 2): fault}))
    assert driver.errors().tolist() == [1, 0]
    assert driver.restarts() == 0
    check_both(agent, run, clean)
    before, after = (np.asarray(r.totals.episodes).tolist() for r in (clean, run))
    assert after[0] < before[0] + 3
    assert after[1] == before[1]


def test_a_killed_worker_is_recorded(on_host):
    """Fault B6."""
    _agent, driver, play, _ = on_host
    run = play(host_task())
    for worker in driver._env._workers:
        worker.process.send_signal(signal.SIGKILL)
    lost = len(driver._env._workers)
    run = advance(driver, run, 10)
    assert int(run.clock.step) == 70
    assert driver.restarts() == lost
    assert driver.errors().tolist() == [1, 1]
    assert finite(run)


def test_environments_that_cannot_go_on_leave_the_run_as_it_was(on_host, tmp_path):
    """Fault B6: the run before the step that failed, to be saved."""
    _, driver, play, _ = on_host
    marker = tmp_path / "marker"
    factory = functools.partial(Mortal, marker)
    vector = functools.partial(WorkerVectorEnv, Counter.spec, factory)
    run = play(envs.HostTask(Counter.spec, vector))
    marker.touch()
    for worker in driver._env._workers:
        worker.process.kill()
    before = loop_to_arrays(run)
    after = driver.advance(run, 10, lambda: False, lambda _: None)
    assert driver.failure.startswith("worker 0 of fake:counter (environments 0-0) died (exit code")
    driver.failure = None
    assert int(after.clock.step) == 60
    assert driver.snapshot()["length"].shape == (2,)
    for name, array in loop_to_arrays(after).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.fixture(scope="module")
def on_device():
    """One compiled driver: plays 60 steps with a key of seed 0's environment."""
    env = faulty_simulation.make()
    agent = make_agent("ddpg", CONFIG, env.spec, 200)
    driver, first = make_driver(agent, env, [0, 1], 500, np.float32)

    def play(key):
        run = copied(first)
        keys = jnp.stack([key, run.environment.key[1]])
        return advance(driver, run.replace(environment=run.environment._replace(key=keys)), 60)

    return agent, driver, play, play(jax.random.key(77))


@pytest.mark.slow
@pytest.mark.parametrize("fault", faulty_simulation.FAULTS)
def test_another_seed_does_not_notice_a_fault_on_the_device(on_device, fault):
    """Fault A5 for pure-JAX environments, counted in the loop's state."""
    agent, driver, play, clean = on_device
    run = play(faulty_simulation.key_of(fault))
    assert driver.errors().tolist() == [1, 0]
    check_both(agent, run, clean)


def test_evaluations_have_no_return_where_the_environment_failed(on_host):
    """Seed 1 in one episode of each evaluation; the others are as without a fault."""
    agent, _, _, clean = on_host
    evaluate = make_evaluator(agent, host_task(), [0, 1], 2)
    results = []
    for faults in ({}, {(101, 1, 4, 0): "raises", (101, 0, 5, 2): "NaN reward"}):
        evaluate._env.close()
        evaluate._env = host_task(faults).vector([(s, i) for s in (100, 101) for i in (0, 1)])
        results.append([evaluate(clean.agent, index) for index in (4, 5)])
    evaluate.close()
    for healthy, broken, episode in zip(*results, (1, 0), strict=True):
        for mine, theirs in zip(broken, healthy, strict=True):
            assert np.isfinite(theirs).all()
            expected = theirs.copy()
            expected[1, episode] = np.nan
            np.testing.assert_array_equal(mine, expected)


def acting(policy):
    """What an evaluator asks of an agent whose state alone decides its actions."""
    return SimpleNamespace(
        discount=0.99,
        act=lambda state, observation, key, clock: policy(state),
        evaluate=None,
        value=lambda state, observation, action: jnp.zeros(()),
    )


@pytest.mark.parametrize("task", ["host", "device"])
def test_a_policy_that_overflows_has_no_return(task):
    """Fault A4: finite parameters whose action is not; what doing nothing earns is not its own."""
    env = host_task() if task == "host" else faulty_simulation.make()
    agent = acting(lambda state: jnp.full(env.spec.action.size, state**2 - state**2))
    evaluate = make_evaluator(agent, env, [0, 1], 2)
    returns, value_bias = evaluate(jnp.array([1.0, 1e30]), 0)
    evaluate.close()
    for values in (returns, value_bias):
        assert np.isfinite(values).tolist() == [[True, True], [False, False]]


def test_failures_in_evaluations_are_told_apart(capfd):
    """Their seeds are other numbers, which training may have too."""
    task = host_task({(100, 0, 0, 1): "raises"})
    agent = acting(lambda state: jnp.zeros(task.spec.action.size))
    evaluate = make_evaluator(agent, task, [0], 1)
    assert np.isnan(evaluate(jnp.zeros(1), 0).returns).all()
    evaluate.close()
    told = "fake:counter in evaluation, seeds + 100, seed 100, environment 0, episode 0: "
    assert told in capfd.readouterr().out


def settings(limit):
    return small_settings(
        task="fake:faulty",
        agent="ddpg",
        config=CONFIG,
        steps=90,
        log_every=5,
        eval_every=45,
        checkpoint_every=0,
        max_environment_errors=limit,
    )


@pytest.fixture
def failing_runs(monkeypatch):
    """Seed 0 meets eight faults, every second in a reset, and seed 1 one."""
    faults = {(0, 0, episode, 2 * (episode % 2)): "raises" for episode in range(2, 10)}
    task = host_task({**faults, (1, 0, 1, 1): "NaN reward"})
    prepare = lambda chosen: (task, make_agent("ddpg", CONFIG, task.spec, chosen.steps))  # noqa: E731
    monkeypatch.setattr(jobs, "prepare", prepare)


def stopped_run(logdir):
    job = plan_run(settings(3), logdir)
    with pytest.raises(
        envs.EnvironmentFailedError,
        match=r"^environments failed 4 times, more than max_environment_errors=3 .*; saved at ",
    ):
        train(job)
    assert not (job.folder / "fingerprint.txt").exists()
    return job.folder


def errors_in(rows):
    return [row["environment_errors"] for row in rows if row["kind"] == "train"]


def test_past_the_limit_a_run_saves_and_stops(failing_runs, tmp_path):
    """Fault A5."""
    folder = stopped_run(tmp_path)
    assert 0 < plan_resume(folder).checkpoint.step < 90
    rows = metrics_without_wall_clock(folder)
    assert errors_in(rows["seed_1"])[-1] == 1
    assert 0 < sum(errors_in(rows[seed])[-1] for seed in rows) <= 4
    assert {row["worker_restarts"] for row in rows["seed_1"] if row["kind"] == "train"} == {0}


@pytest.mark.slow
def test_past_the_limit_a_run_can_be_continued_exactly(failing_runs, tmp_path):
    """Fault A5: also with faults in the log and in resets."""
    whole = train(plan_run(settings(100), tmp_path / "whole"))
    job = plan_resume(stopped_run(tmp_path / "part"))
    end = train(job._replace(settings=settings(100)))
    assert end.fingerprint == whole.fingerprint
    rows = metrics_without_wall_clock(whole.folder)
    assert metrics_without_wall_clock(end.folder) == rows
    assert errors_in(rows["seed_0"]) == sorted(errors_in(rows["seed_0"]))
    assert errors_in(rows["seed_0"])[-1] >= 4
    assert errors_in(rows["seed_1"])[-1] == 1
