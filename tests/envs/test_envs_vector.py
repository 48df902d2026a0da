"""Worker processes: order, seeding, restart, resume, failures, signals, clean exit."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax  # the parent has it, the workers must not
import numpy as np
import pytest
from fake_host_envs import Counter, Endless, SeesJax, Slow, broken

from mst_jax import envs
from mst_jax.envs.base import episode_seed
from mst_jax.envs.host import processes
from mst_jax.envs.host.vector import WorkerVectorEnv

SEEDS = [(3, 0), (3, 1), (5, 0)]


def make(kind=Counter, seeds=SEEDS, workers=1):
    return WorkerVectorEnv(kind.spec, kind, seeds, workers)


def random_actions(steps, count, size, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(-0.4, 0.4, (steps, count, size)).astype(np.float32)


def equal(one, other):
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def oracle(actions, seeds=SEEDS):
    """Steps each environment alone in this process; returns observations and Timestep tuples."""
    everything = []
    for index, (seed, number) in enumerate(seeds):
        environment, episode = Counter(), 0
        first = environment.reset(episode_seed(seed, number, episode))
        rows = []
        for action in actions[:, index]:
            final, reward, terminated, truncated = environment.step(action)
            following = final
            if terminated or truncated:
                episode += 1
                following = environment.reset(episode_seed(seed, number, episode))
            over = terminated or truncated
            rows.append((following, np.float32(reward), terminated, truncated, final, False, over))
        everything.append((first, rows))
    return everything


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_steps_restarts_and_flags_do_not_depend_on_the_number_of_workers(workers):
    actions = random_actions(30, 3, 2)
    expected = oracle(actions)
    with make(workers=workers) as environments:
        observation = environments.reset()
        assert len(environments._workers) == min(workers, 3)
        steps = [environments.step(action) for action in actions]
    ends = {"terminated": 0, "truncated": 0}
    for index, (first, rows) in enumerate(expected):
        np.testing.assert_array_equal(observation[index], first)
        for step, row in zip(steps, rows, strict=True):
            equal([field[index] for field in step], row)
            ends["terminated"] += row[2]
            ends["truncated"] += row[3]
    assert min(ends.values()) > 0  # both kinds of end were seen
    kinds = [np.float32, np.float32, np.bool_, np.bool_, np.float32, np.bool_, np.bool_]
    assert [field.dtype for field in steps[0]] == kinds
    assert [field.shape for field in steps[0]] == [(3, 3), (3,), (3,), (3,), (3, 3), (3,), (3,)]


def test_an_episode_depends_on_seed_index_and_number_alone():
    actions = random_actions(20, 3, 2)
    with make() as environments:
        first = environments.reset()
        for action in actions:
            environments.step(action)
        equal([environments.reset()], [first])
        later = environments.reset(episode=7)
    tags = [tag for tag, *_ in (*first, *later)]
    assert len(set(tags)) == 6  # another seed, index or episode is another start
    with make(seeds=SEEDS[::-1]) as environments:
        np.testing.assert_array_equal(environments.reset(), first[::-1])


def test_results_are_never_overwritten():
    actions = random_actions(2, 3, 2)
    with make() as environments:
        results = [environments.reset(), *environments.step(actions[0])]
        copies = [result.copy() for result in results]
        environments.step(actions[1])
    equal(results, copies)


@pytest.mark.parametrize("steps", [0, 1, 4, 17])
def test_restore_continues_bit_for_bit_from_any_step(steps):
    actions = random_actions(40, 3, 2)
    with make() as environments:
        current = environments.reset()
        for action in actions[:steps]:
            current = environments.step(action).observation
        snapshot = environments.snapshot()
        untouched = {name: array.copy() for name, array in snapshot.items()}
        expected = [environments.step(action) for action in actions[steps:]]
        last = environments.snapshot()
    equal(snapshot.values(), untouched.values())
    with make(workers=2) as environments:
        np.testing.assert_array_equal(environments.restore(snapshot), current)
        for action, step in zip(actions[steps:], expected, strict=True):
            equal(environments.step(action), step)
        resumed = environments.snapshot()
    assert resumed.keys() == last.keys()
    equal(resumed.values(), last.values())  # the bytes that a checkpoint would hold


def test_a_snapshot_holds_the_current_episodes_actions_and_zeros():
    actions = random_actions(17, 3, 2)
    with make() as environments:
        environments.reset()
        steps = [environments.step(action) for action in actions]
        snapshot = environments.snapshot()
    ended = np.array([step.terminated | step.truncated for step in steps])
    assert snapshot["actions"].shape == (3, 8, 2)
    np.testing.assert_array_equal(snapshot["seeds"], SEEDS)
    np.testing.assert_array_equal(snapshot["episode"], ended.sum(axis=0))
    for index, length in enumerate(snapshot["length"]):
        assert length == 16 - np.flatnonzero(ended[:, index])[-1]
        log = snapshot["actions"][index]
        np.testing.assert_array_equal(log[:length], actions[17 - length :, index])
        assert not log[length:].any()


def test_restore_of_an_endless_task_whose_log_has_grown():
    actions = random_actions(1100, 1, 2)
    with make(Endless, SEEDS[:1]) as environments:
        environments.reset()
        for action in actions[:1050]:
            current = environments.step(action).observation
        snapshot = environments.snapshot()
        assert snapshot["length"].tolist() == [1050]
        with make(Endless, SEEDS[:1]) as resumed:
            np.testing.assert_array_equal(resumed.restore(snapshot), current)
            equal(resumed.step(actions[1050]), environments.step(actions[1050]))


def test_restore_refuses_what_was_taken_elsewhere():
    with make() as environments:
        environments.reset()
        snapshot = environments.snapshot()
        with pytest.raises(ValueError, match="other seeds"):
            environments.restore(snapshot | {"seeds": snapshot["seeds"] + 1})
        with pytest.raises(ValueError, match="another task or action repeat"):
            environments.restore(snapshot | {"actions": snapshot["actions"][:, :4]})


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((3, 2)), np.zeros((2, 2), np.float32), np.zeros(2, np.float32)],
    ids=["float64", "one short", "one axis"],
)
def test_wrong_actions_are_named_and_harm_nothing(wrong):
    with make() as environments:
        environments.reset()
        with pytest.raises(ValueError, match=r"actions must be float32 \(3, 2\)"):
            environments.step(wrong)
        environments.step(np.zeros((3, 2), np.float32))
        environments.step(jax.numpy.zeros((3, 2)))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([], "pairs"), ([1, 2], "pairs"), ([(0, -1)], "must lie in"), ([(2**32, 0)], "must lie in")],
)
def test_wrong_seeds_are_named(seeds, message):
    with pytest.raises(ValueError, match=message):
        make(seeds=seeds)


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="workers must be at least 1"):
        make(workers=0)
    with make() as environments:
        for call in (environments.snapshot, lambda: environments.step(np.zeros((3, 2), "f4"))):
            with pytest.raises(RuntimeError, match="reset"):
                call()
        with pytest.raises(ValueError, match="episode must lie in"):
            environments.reset(-1)


def test_workers_import_neither_jax_nor_the_parents_main():
    assert "jax" in sys.modules
    with make(SeesJax) as environments:
        np.testing.assert_array_equal(environments.reset(), [[0, 0, 1]] * 3)


def test_dm_control_workers_do_not_map_jax():
    with envs.make("dmc:cartpole-swingup").vector([(0, 0)]) as environments:
        environments.reset()
        process = Path(f"/proc/{environments._workers[0].process.pid}")
        maps = (process / "maps").read_text()
        assert b"OMP_NUM_THREADS=1" in (process / "environ").read_bytes().split(b"\0")
    assert "mujoco" in maps
    assert "jaxlib" not in maps


def test_an_environment_that_cannot_be_made_is_reported_at_the_first_reset():
    with (
        WorkerVectorEnv(Counter.spec, broken, SEEDS, 1) as environments,
        pytest.raises(RuntimeError, match="failed: OSError: no such asset"),
    ):
        environments.reset()


def test_workers_outlive_sigint_and_sigterm():
    with make(workers=1) as environments:
        pid = environments._workers[0].process.pid
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)  # while Python is still starting in it
        environments.reset()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        environments.step(np.zeros((3, 2), np.float32))
    assert environments._workers[0].process.returncode == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == set()  # the parent's is as before


class InterruptError(Exception):
    """What the parent's signal handler raises in the test below."""


def test_an_interrupted_step_closes_and_keeps_the_last_complete_one(monkeypatch):
    def interrupt(*_):
        raise InterruptError

    monkeypatch.setattr(processes, "_GRACE_SECONDS", 0.2)
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with make(Slow) as environments:
            environments.reset()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(InterruptError):
                environments.step(np.full((3, 2), -1, np.float32))  # takes a minute
            assert environments.snapshot()["length"].tolist() == [0, 0, 0]
            with pytest.raises(RuntimeError, match="closed"):
                environments.reset()
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_close_may_be_repeated_and_ends_every_worker():
    environments = make(workers=3)
    environments.close()  # before the workers have even started
    environments.close()
    assert [worker.process.returncode for worker in environments._workers] == [0, 0, 0]


def test_close_never_hangs(monkeypatch):
    monkeypatch.setattr(processes, "_GRACE_SECONDS", 0.2)
    environments = make()
    environments.reset()
    environments._workers[0].process.send_signal(signal.SIGSTOP)
    environments.close()
    assert environments._workers[0].process.returncode == -signal.SIGKILL


def test_forgotten_environments_end_with_their_last_reference():
    environments = make()
    process = environments._workers[0].process
    del environments
    assert process.returncode == 0


PARENT = """
import sys, time
sys.path.insert(0, {path!r})
from fake_host_envs import Counter
from mst_jax.envs.host.vector import WorkerVectorEnv
environments = WorkerVectorEnv(Counter.spec, Counter, [(0, 0), (0, 1)], 2)
environments.reset()
print(*[worker.process.pid for worker in environments._workers], flush=True)
{then}
"""


def run_parent(then):
    code = PARENT.format(path=str(Path(__file__).parents[1]), then=then)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with parent.stdout:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    return parent, pids


def test_workers_leave_when_the_parent_is_killed():
    parent, pids = run_parent("time.sleep(60)")
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(alive(pid) for pid in pids))


def test_workers_leave_when_the_parent_ends_without_closing():
    parent, pids = run_parent("sys.exit(3)")
    assert parent.wait(20) == 3
    wait_until(lambda: not any(alive(pid) for pid in pids))


def test_a_dm_control_episode_lasts_500_agent_steps_and_restarts():
    task = envs.make("dmc:cartpole-swingup")
    actions = random_actions(501, 2, 1)
    with task.vector([(0, 0), (0, 1)], workers=1) as environments:
        first = environments.reset()
        for number, action in enumerate(actions, start=1):
            step = environments.step(action)
            assert not step.terminated.any()
            assert step.truncated.all() == step.truncated.any() == (number == 500)
            if number == 500:
                fresh, final = step.observation, step.next_observation
        second = environments.reset(episode=1)
    np.testing.assert_array_equal(fresh, second)
    assert not np.array_equal(fresh, final)
    assert not np.array_equal(fresh, first)
    assert (np.abs(final[:, 3:]).sum() > 0.1).all()  # it was moving


@pytest.mark.parametrize(
    "name",
    [
        "reacher-hard",
        pytest.param("point_mass-hard", marks=pytest.mark.slow),
        pytest.param("finger-turn_hard", marks=pytest.mark.slow),
        pytest.param("cartpole-swingup", marks=pytest.mark.slow),
    ],
)
def test_dm_control_restores_bit_for_bit_even_where_a_reset_writes_the_model(name):
    task = envs.make(f"dmc:{name}")
    actions = random_actions(40, 2, task.spec.action.size)
    vectors = functools.partial(task.vector, [(1, 0), (1, 1)])
    with vectors(workers=1) as environments:
        environments.reset(episode=3)
        for action in actions[:25]:
            current = environments.step(action).observation
        snapshot = environments.snapshot()
        expected = [environments.step(action) for action in actions[25:]]
    with vectors(workers=2) as environments:
        environments.reset()  # another episode has written another goal
        environments.step(actions[0])
        np.testing.assert_array_equal(environments.restore(snapshot), current)
        for action, step in zip(actions[25:], expected, strict=True):
            equal(environments.step(action), step)
