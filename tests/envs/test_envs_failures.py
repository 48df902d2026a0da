"""What environments that fail cost: their episode, never another's, and never the run."""

import functools
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from fake_host_envs import Counter, Faulty, Mortal

from mst_jax import envs
from mst_jax.envs.base import EnvironmentFailedError, vector_spec
from mst_jax.envs.host import processes
from mst_jax.envs.host.vector import WorkerVectorEnv

FAULTS = [
    "raises",
    "NaN observation",
    "infinite observation",
    "huge observation",
    "NaN reward",
    "infinite reward",
    "huge reward",
    "no reward",
]


def make(factory=Counter, count=3, workers=1, spec=Counter.spec, **others):
    """Environments of seeds 0, 1, ..."""
    return WorkerVectorEnv(spec, factory, [(seed, 0) for seed in range(count)], workers, **others)


def faulty(faults, since=None):
    """A factory; faults by (seed, episode, step)."""
    places = {(seed, 0, *rest): fault for (seed, *rest), fault in faults.items()}
    return functools.partial(Faulty, places, since)


def actions_for(steps, count):
    generator = np.random.default_rng(0)
    return generator.uniform(-0.4, 0.4, (steps, count, 2)).astype(np.float32)


def play(environments, actions):
    return [environments.step(action) for action in actions]


def rows_of(steps, index):
    return [[field[index] for field in step] for step in steps]


def equal(one, other):
    for mine, theirs in zip(one, other, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.fixture(scope="module")
def healthy():
    """40 steps of environments that never fail: actions, first observations, timesteps."""
    actions = actions_for(40, len(FAULTS) + 1)
    with make(count=len(FAULTS) + 1, workers=2) as environments:
        return actions, environments.reset(), play(environments, actions)


def episode_starts(rows):
    """Numbers of the steps that end episodes."""
    return [n for n, row in enumerate(rows) if row[2] or row[3]]


@pytest.mark.parametrize("when", [2, 0], ids=["in a step", "in a reset"])
def test_a_failure_costs_one_step_and_its_episode(healthy, when, capfd):
    """Faults A5 and A4's cause: seed n meets the n-th fault in episode 1, the last seed none."""
    actions, first, clean = healthy
    faults = FAULTS if when else FAULTS[:4]  # a reset returns no reward
    factory = faulty({(seed, 1, when): fault for seed, fault in enumerate(faults)})
    with make(factory, len(FAULTS) + 1, workers=2) as environments:
        np.testing.assert_array_equal(environments.reset(), first)
        steps = play(environments, actions)
        expected = [1] * len(faults) + [0] * (len(FAULTS) + 1 - len(faults))
        assert environments.errors.tolist() == expected
        assert environments.restarts == 0
    for step in steps:
        assert all(np.isfinite(field).all() for field in step)
    for seed in range(len(FAULTS) + 1):
        mine, theirs = rows_of(steps, seed), rows_of(clean, seed)
        if seed >= len(faults):
            equal(mine, theirs)
            continue
        ends = episode_starts(theirs)
        number = ends[0] + max(when, 1)  # of the step that is lost
        _, reward, *ends_here, final, lost, over = mine[number]
        assert (reward, *ends_here, lost, over) == (0, False, True, True, True)
        assert not any(row[5] for n, row in enumerate(mine) if n != number)
        before = mine[number - 1][0]  # what was acted on
        np.testing.assert_array_equal(final, before)
        if not when:  # the last finite observation is that of the episode before
            np.testing.assert_array_equal(before, theirs[ends[0]][4])
        # Episode 2 begins as it always does, in a new instance.
        np.testing.assert_array_equal(mine[number][0], theirs[ends[1]][0])
        assert mine[number + 1][0][1] == 1
    printed = capfd.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert len(lines) == len(faults)
    place = "seed 0, environment 0, episode 1: FloatingPointError: the sky (fake_host_envs.py:"
    assert any(line.startswith(f"fake:counter, {place}") for line in lines)
    assert all(line.endswith("the episode is lost") for line in lines)


def test_resume_is_exact_around_failures():
    """From every step, also between a reset that failed and the step that it costs."""
    faults = {
        (0, 0, 2): "raises",
        (0, 1, 1): "NaN reward",
        (1, 1, 0): "raises",
        (2, 1, 0): "raises",
    }
    factory = faulty({**faults, (2, 2, 0): "NaN observation"})
    actions = actions_for(20, 3)
    with make(factory) as environments, make(factory, workers=2) as others:
        observation = environments.reset()
        snapshots, steps = [], []
        for action in actions:
            snapshots.append((environments.snapshot(), observation))
            steps.append(environments.step(action))
            observation = steps[-1].observation
        last = environments.snapshot()
        assert last["errors"].tolist() == [2, 1, 2]
        assert any(snapshot["idle"].any() for snapshot, _ in snapshots)
        for number, (snapshot, observation) in enumerate(snapshots):
            np.testing.assert_array_equal(others.restore(snapshot), observation)
            equal(play(others, actions[number:]), steps[number:])
            resumed = others.snapshot()
            assert resumed.keys() == last.keys()
            equal([resumed.values()], [last.values()])


def test_a_failure_while_replaying_costs_the_episode(tmp_path):
    """Fault A5: every resume used to die at the same step."""
    marker = tmp_path / "marker"
    factory = faulty({(1, 0, 2): "raises"}, marker)
    actions = actions_for(12, 2)
    with make(factory, 2) as environments:
        environments.reset()
        current = play(environments, actions[:2])[-1].observation
        snapshot = environments.snapshot()
        expected = play(environments, actions[2:])
    marker.touch()
    with make(factory, 2) as environments:
        np.testing.assert_array_equal(environments.restore(snapshot), current)
        assert environments.errors.tolist() == [0, 0]
        steps = play(environments, actions[2:])
        assert environments.errors.tolist() == [0, 1]
    equal(rows_of(steps, 0), rows_of(expected, 0))
    assert [bool(row[5]) for row in rows_of(steps, 1)] == [True] + [False] * 9
    np.testing.assert_array_equal(steps[0].next_observation[1], current[1])


def test_an_evaluation_whose_first_reset_fails_has_no_observation():
    with make(faulty({(0, 3, 0): "raises"}), 2) as environments:
        environments.reset()
        observation = environments.reset(episode=3)
        np.testing.assert_array_equal(observation[0], np.zeros(3))
        assert environments.step(np.zeros((2, 2), np.float32)).lost.tolist() == [True, False]


def test_failures_without_end_are_not_printed_without_end(capfd):
    factory = faulty({(0, episode, 0): "raises" for episode in range(100)})
    with make(factory, 1) as environments:
        environments.reset()
        play(environments, actions_for(50, 1))
        assert environments.errors.tolist() == [50]
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "fake:counter: further failures are counted and not printed"


@pytest.mark.parametrize("when", ["idle", "stepping"])
def test_a_worker_that_is_killed_is_started_again(when, capfd):
    """Fault B6."""
    actions = actions_for(30, 3)
    with make(workers=3) as environments, make() as clean:
        environments.reset()
        clean.reset()
        steps, expected = play(environments, actions[:1]), play(clean, actions)
        victim = environments._workers[1].process
        if when == "stepping":
            victim.send_signal(signal.SIGSTOP)
            subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -KILL {victim.pid}"]).wait()
        else:
            victim.kill()
            victim.wait()
        steps += play(environments, actions[1:])
        assert environments.errors.tolist() == [0, 1, 0]
        assert environments.restarts == 1
        assert environments.snapshot()["restarts"] == 1
    for seed in (0, 2):
        equal(rows_of(steps, seed), rows_of(expected, seed))
    mine, theirs = rows_of(steps, 1), rows_of(expected, 1)
    assert mine[1][1:4] == [0, False, True]
    np.testing.assert_array_equal(mine[1][4], mine[0][0])
    np.testing.assert_array_equal(mine[1][0], theirs[episode_starts(theirs)[0]][0])
    assert capfd.readouterr() == (
        "worker 1 of fake:counter (environments 1-1) died (exit code -9), its episodes are lost; "
        "it is started again\n",
        "",
    )


def test_a_worker_that_dies_of_a_reset_goes_on_with_the_episode_after():
    factory = faulty({(0, 1, 0): "exits", (0, 2, 0): "exits"})
    with make(factory, 1) as environments:
        environments.reset()
        steps = play(environments, actions_for(30, 1))
        assert environments.snapshot()["episode"][0] > 3
        assert 2 <= environments.errors[0] <= 3
    assert all(np.isfinite(step.observation).all() for step in steps)


def test_a_worker_that_cannot_be_started_again_is_one_line(tmp_path):
    """Fault B6: the log is that of the last complete step, so a checkpoint can be written."""
    marker = tmp_path / "marker"
    with make(functools.partial(Mortal, marker), 2) as environments:
        environments.reset()
        play(environments, actions_for(2, 2))
        before = environments.snapshot()
        marker.touch()
        environments._workers[0].process.kill()
        with pytest.raises(
            EnvironmentFailedError, match=r"^worker 0 .* died \(exit code 3\), as d"
        ):
            play(environments, actions_for(1, 2))
        with pytest.raises(RuntimeError, match="closed"):
            play(environments, actions_for(1, 2))
        after = environments.snapshot()
    assert after.pop("restarts") == 2
    equal([[before[name] for name in after]], [after.values()])


def test_a_worker_that_does_not_answer_is_named_and_replaced(monkeypatch, capfd):
    """Fault B4."""
    monkeypatch.setattr(processes, "_PATIENCE_SECONDS", 0.3)
    with make(workers=3, timeout=20.0) as environments:
        environments.reset()  # a worker may take its time to start
        environments._workers[2]._timeout = 0.6
        environments._workers[2].process.send_signal(signal.SIGSTOP)
        capfd.readouterr()
        assert play(environments, actions_for(1, 3))[0].lost.tolist() == [False, False, True]
    pid = r"worker 2 of fake:counter \(environments 2-2\) \(process \d+\)"
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert re.match(rf"{pid} has not answered for 0.3 s; after 0.6 it counts as dead", lines[0])
    assert "has not answered for 0.6 s, its episodes are lost; it is started again" in lines[1]


def test_a_worker_may_be_waited_for_without_limit(monkeypatch, capfd):
    monkeypatch.setattr(processes, "_PATIENCE_SECONDS", 0.2)
    with make(count=1, timeout=0) as environments:
        environments.reset()
        process = environments._workers[0].process
        process.send_signal(signal.SIGSTOP)
        waker = subprocess.Popen(["sh", "-c", f"sleep 0.6; kill -CONT {process.pid}"])
        play(environments, actions_for(1, 1))
        waker.wait()
        assert environments.errors.sum() == 0
    assert "has not answered for 0.2 s; there is no limit" in capfd.readouterr().out


class Local(Counter):
    pass


Local.__module__ = "__main__"  # as if this file were the script that runs


@pytest.mark.parametrize(
    ("factory", "spec", "message"),
    [
        (Local, Counter.spec, "Local is defined in the running script or notebook, where worker "),
        (functools.partial(lambda: None), Counter.spec, "cannot be sent to worker processes ("),
        (
            Counter,
            vector_spec("fake:counter", 4, 2, 8, 1),
            "worker 0 of fake:counter (environments 0-2) failed: WrongShapeError: an observation "
            "has shape (3,), the task's spec says (4,)",
        ),
        (
            faulty({(1, 0, 2): "wrong shape"}),
            Counter.spec,
            "failed: WrongShapeError: an observation has shape (2,), the task's spec says (3,)",
        ),
    ],
    ids=["script", "lambda", "spec", "step"],
)
def test_what_is_set_up_wrongly_is_one_line(factory, spec, message):
    """Fault D15."""
    with (
        pytest.raises((ValueError, EnvironmentFailedError)) as caught,
        make(factory, spec=spec) as environments,
    ):
        environments.reset()
        play(environments, actions_for(3, 3))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_colon_in_the_path_does_not_matter(tmp_path, monkeypatch):
    """Fault D14."""
    folder = tmp_path / "12:30"
    folder.mkdir()
    (folder / "of_noon.py").write_text(
        "from fake_host_envs import Counter\n\nclass Noon(Counter):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    from of_noon import Noon

    with make(Noon) as environments:
        assert environments.reset().shape == (3, 3)
    del sys.modules["of_noon"]


def test_a_diverged_simulation_of_dm_control_costs_its_episode(tmp_path, monkeypatch, capfd):
    """Fault A5: PhysicsError."""
    monkeypatch.chdir(tmp_path)
    with envs.make("dmc:pendulum-swingup").vector([(0, 0), (1, 0)], workers=1) as environments:
        current = environments.reset()
        actions = np.array([[np.nan], [0.5]], np.float32)
        step = environments.step(actions)
        following = environments.reset(episode=1)
    assert step.lost.tolist() == step.truncated.tolist() == [True, False]
    np.testing.assert_array_equal(step.next_observation[0], current[0])
    np.testing.assert_array_equal(step.observation[0], following[0])
    assert np.isfinite(step.observation).all()
    printed = capfd.readouterr().out
    assert "seed 0, environment 0, episode 0: PhysicsError: Physics state is invalid" in printed
    assert list(tmp_path.iterdir()) == []
