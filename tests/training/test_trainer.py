"""Whole runs: what they write, and that a stopped one continues as if it had never stopped."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import launchers
import numpy as np
import pytest
from small_runs import (
    CLI,
    cache_misses,
    content,
    metrics_without_wall_clock,
    small_config,
    small_settings,
    stop_after,
)

from mst_jax import load_policy
from mst_jax.analysis import read_curve
from mst_jax.analysis.results_table import cost_of
from mst_jax.program import drivers
from mst_jax.training import (
    checkpoint_fingerprint,
    load_snapshot,
    plan_resume,
    plan_run,
    prepare,
    train,
    trainer,
)

# The replay buffer is full after 100 steps and begins to overwrite its oldest transitions. MR.Q has
# most to keep: priorities, targets, three modules.
SETTINGS = small_settings(
    agent="mrq", final_eval_episodes=3, config=small_config(agent="mrq", buffer_size=100)
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run of two seeds on a pure-JAX environment."""
    return train(plan_run(SETTINGS, tmp_path_factory.mktemp("runs")))


def test_a_run_writes_what_it_promises(finished):
    folder = finished.folder
    assert finished.step == 240
    assert (folder / "fingerprint.txt").read_text().strip() == finished.fingerprint
    for name in ("config.json", "versions.json", "task.json", "topology_initial.npz"):
        assert (folder / name).is_file(), name
    for seed in (0, 1):
        assert list((folder / f"seed_{seed}").glob("events*")), "TensorBoard is on by default"
    rows = metrics_without_wall_clock(folder)
    evaluations = [row["step"] for row in rows["seed_1"] if row["kind"] == "eval"]
    training = [row for row in rows["seed_1"] if row["kind"] == "train"]
    assert evaluations == [0, 100, 200, 240]
    assert [row["step"] for row in training] == [40, 80, 120, 160, 200, 240]
    assert all(row["healthy"] for row in rows["seed_1"])
    assert "critic/loss" not in training[0], "nothing was learned in the warm-up"
    assert [row["kind"] for row in rows["seed_1"]].count("final") == 1
    last = training[-1]
    assert last["sparsity/critic"] == pytest.approx(0.6, abs=0.01)
    assert last["sparsity/encoder"] == 0.0
    assert np.isfinite([last["critic/loss"], last["encoder/loss"], last["actor/loss"]]).all()
    assert rows["seed_0"] != rows["seed_1"]


def test_curve_of_a_run(finished):
    curve = read_curve(finished.folder)
    assert curve.returns.shape == (2, 4)
    assert np.isfinite(curve.returns).all()
    assert curve.healthy.all()


def test_the_newest_policy_acts(finished):
    snapshot = load_snapshot(finished.folder)
    assert snapshot.step == 240
    policies = [load_policy(finished.folder, seed) for seed in (0, 1)]
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    actions = [policy.act(observations) for policy in policies]
    assert actions[0].shape == (5, 2)
    assert np.abs(actions).max() <= 1.0
    assert (actions[0] != actions[1]).any()
    np.testing.assert_allclose(policies[0].act(observations[2]), actions[0][2], atol=1e-6)
    with pytest.raises(ValueError, match=r"holds the seeds \[0, 1\], not 7"):
        load_policy(finished.folder, 7)


def test_the_final_evaluation_judges_the_last_and_the_best_policy_anew(finished):
    """By hand: which evaluation was best, and what both policies return on the final episodes."""
    from mst_jax.program.evaluation import make_evaluator
    from mst_jax.training.best import FINAL_INDEX

    rows = metrics_without_wall_clock(finished.folder)
    snapshot = load_snapshot(finished.folder)
    settings, agent, last = snapshot.settings, snapshot.agent, snapshot.states
    best = load_snapshot(finished.folder, "best").states
    task, _ = prepare(settings)
    evaluate = make_evaluator(agent, task, settings.seed_list, 3)
    policies = {"last": last, "best": best}
    by_hand = {name: evaluate(states, FINAL_INDEX).returns for name, states in policies.items()}
    for index, seed in enumerate(("seed_0", "seed_1")):
        evaluations = [row for row in rows[seed] if row["kind"] == "eval"]
        chosen = max(evaluations, key=lambda row: row["return"])
        (final,) = [row for row in rows[seed] if row["kind"] == "final"]
        assert final["step"] == 240
        assert final["best/step"] == chosen["step"]
        assert final["best/return_when_chosen"] == pytest.approx(chosen["return"])
        for policy, returns in by_hand.items():
            assert final[f"{policy}/returns"] == returns[index].tolist()
            assert final[f"{policy}/return"] == pytest.approx(returns[index].mean())
        seen = {value for row in evaluations for value in row["returns"]}
        assert seen.isdisjoint(final["last/returns"]), "fresh episodes"
        again = load_policy(finished.folder, index, best=True)
        observation = np.ones(4, np.float32)
        state = jax.tree.map(lambda leaf, i=index: leaf[i], best)
        np.testing.assert_array_equal(
            again.act(observation), jax.jit(agent.act)(state, observation, None, None)
        )


def test_fingerprint_on_request_equals_the_one_written_at_the_end(finished):
    assert checkpoint_fingerprint(finished.folder) == finished.fingerprint


def test_an_existing_run_is_not_overwritten(finished):
    logdir = finished.folder.parents[1]
    with pytest.raises(ValueError, match="exists: resume that run"):
        plan_run(SETTINGS, logdir)


@pytest.mark.slow
def test_stopping_in_mid_chunk_and_resuming_changes_nothing(finished, tmp_path, monkeypatch):
    """Stops between two log rows, twice, and once in the warm-up; the buffer is full by then.

    Fault B2: no program is compiled again.
    """
    with cache_misses():  # all its programs are in the persistent cache then
        train(plan_run(SETTINGS, tmp_path / "whole"))
    job = plan_run(SETTINGS, tmp_path / "stopped")
    for steps in (50, 100, 50):
        monkeypatch.setattr(trainer, "_stop_on_signal", stop_after(steps))
        outcome = train(job)
        assert not outcome.finished
        job = plan_resume(outcome.folder)
        monkeypatch.undo()
    assert 0 < job.checkpoint.step < 240
    nothing_is_cut_before_a_step_is_taken(job, monkeypatch)
    job = plan_resume(job.folder)
    assert (job.checkpoint.arrays["buffer/cursor"] < job.checkpoint.arrays["buffer/filled"]).all()
    with cache_misses() as missed:
        outcome = train(job)
    assert missed == []
    assert outcome.fingerprint == finished.fingerprint
    assert metrics_without_wall_clock(outcome.folder) == metrics_without_wall_clock(finished.folder)


def nothing_is_cut_before_a_step_is_taken(job, monkeypatch):
    """As when the device's memory does not suffice; the rows are what a killed process left."""
    with (job.folder / "seed_0" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 239, "kind": "train"}\n')
    (job.folder / "topology").mkdir(exist_ok=True)
    (job.folder / "topology" / "000000000239.npz").touch()

    def fail(*_):
        raise MemoryError

    before = content(job.folder)
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(drivers.JaxDriver, "advance", fail)
        train(job)
    assert content(job.folder) == before


def test_evaluation_has_no_noise_and_depends_on_its_index_only(finished):
    from mst_jax.program.evaluation import make_evaluator

    snapshot = load_snapshot(finished.folder)
    settings, agent, states = snapshot.settings, snapshot.agent, snapshot.states
    task, _ = prepare(settings)
    evaluate = make_evaluator(agent, task, settings.seed_list, 3)
    first, again, other = (evaluate(states, index).returns for index in (1, 1, 2))
    assert first.shape == (2, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    by_hand = play(task, agent, jax.tree.map(lambda x: x[0], states), 0 + 100, 1, 3)
    np.testing.assert_allclose(first[0], by_hand, rtol=1e-4)


def play(env, agent, state, seed, index, episodes):
    """The evaluation of one seed written as a plain loop."""
    from mst_jax.program.state import Purpose

    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), Purpose.EVALUATE), index)
    returns = []
    for episode_key in jax.random.split(key, episodes):
        world, observation = env.reset(episode_key)
        total, ended = 0.0, False
        step = jax.jit(lambda w, o: env.step(w, agent.act(state, o, None, None)))
        while not ended:
            world, timestep = step(world, observation)
            total += float(timestep.reward)
            observation = timestep.observation
            ended = bool(timestep.terminated | timestep.truncated)
        returns.append(total)
    return returns


def launch(*arguments):
    command = [sys.executable, "-m", "experiments.train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def dmc_arguments(logdir):
    return [
        "--task=dmc:cartpole-swingup",
        "--seeds=2",
        "--steps=600",
        "--eval_every=300",
        "--eval_episodes=1",
        "--log_every=100",
        "--checkpoint_every=150",
        "--final_eval_episodes=1",
        "--config.buffer_size=200",
        f"--logdir={logdir}",
        *CLI,
    ]


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_killed_and_terminated_dm_control_runs_resume_exactly(tmp_path):
    """2N steps == SIGKILL after a checkpoint, resume, SIGTERM, resume; bit for bit.

    The replay buffer has begun to overwrite its oldest transitions when the second signal comes.
    """
    here = launchers.run("experiments.train", *dmc_arguments(tmp_path / "whole"))
    assert here.status == 0, here.err
    process = launch(*dmc_arguments(tmp_path / "broken"))
    (whole,) = tmp_path.glob("whole/*/*")
    broken = tmp_path / "broken" / whole.relative_to(tmp_path / "whole")
    wait_for(broken / "checkpoints" / "full" / "000000000150", process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    process = launch(f"--resume={broken}")
    wait_for_text(broken / "seed_0" / "metrics.jsonl", '"step": 300', process)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    if "finished" not in output:  # a fast machine may have ended before the signal came
        assert f"--resume={broken}" in output
        finish(launch(f"--resume={broken}"))
    told = launchers.run("experiments.train", f"--resume={broken}").out
    assert f"{broken} is finished: there is nothing to do" in told
    assert (broken / "fingerprint.txt").read_text() == (whole / "fingerprint.txt").read_text()
    assert metrics_without_wall_clock(broken) == metrics_without_wall_clock(whole)


def wait_for(path, process):
    wait_until(path.exists, process)


def wait_for_text(path, text, process):
    wait_until(lambda: path.exists() and text in path.read_text(), process)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["probe:point", "dmc:pendulum-swingup"])
def test_a_run_with_the_time_is_resumed_evaluated_and_read_with_it(task, tmp_path, monkeypatch):
    config = small_config("mst", "sac")
    settings = small_settings(task, agent="sac", config=config, with_time="published")
    whole = train(plan_run(settings, tmp_path / "whole"), progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_stop_on_signal", stop_after(137))
        stopped = train(plan_run(settings, tmp_path / "stopped"), progress=False)
    resumed = train(plan_resume(stopped.folder), progress=False)
    assert (whole.finished, stopped.finished, resumed.finished) == (True, False, True)
    assert whole.fingerprint == resumed.fingerprint
    spec = prepare(settings)[0].spec
    assert spec.observation.unscaled == 1
    action = load_policy(whole.folder).act(np.zeros(spec.observation.shape, np.float32))
    assert action.shape == spec.action.shape
    assert cost_of(settings) != cost_of(dataclasses.replace(settings, with_time="off"))


def wait_until(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_evaluation_on_the_host_equals_a_plain_loop():
    from mst_jax import envs
    from mst_jax.agents import Sizes, make_agent
    from mst_jax.program.evaluation import HostEvaluator

    task = envs.make("dmc:cartpole-swingup")
    agent = make_agent("sac", small_config("dense"), Sizes.vector(5, 1), 1000)
    state = jax.jit(agent.init)(jax.random.key(0))
    evaluate = HostEvaluator(agent, task, seeds=[3], episodes=2)
    returns, biases = evaluate(jax.tree.map(lambda leaf: leaf[None], state), 4)
    evaluate.close()
    act = jax.jit(lambda observation: agent.act(state, observation, None, None))
    with task.vector([(103, 0), (103, 1)]) as vector:
        observation = vector.reset(episode=4)
        by_hand, discounted = np.zeros(2), np.zeros(2)
        first = [jnp.asarray(o) for o in observation]
        values = [float(agent.value(state, o, act(o))) for o in first]
        for number in range(500):
            action = np.stack([act(jnp.asarray(o)) for o in observation])
            timestep = vector.step(action)
            by_hand += timestep.reward
            discounted += agent.discount**number * timestep.reward
            observation = timestep.observation
        assert timestep.truncated.all()
    np.testing.assert_allclose(returns[0], by_hand, rtol=1e-3)
    np.testing.assert_allclose(biases[0], values - discounted, rtol=1e-3, atol=1e-3)
