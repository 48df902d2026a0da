"""Brax: its own stepping is the oracle; episodes, restarts and resume are ours."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import metrics_without_wall_clock, small_settings

from mst_jax import envs
from mst_jax.envs.quiet import quiet
from mst_jax.envs.suites import brax
from mst_jax.runs import checkpoints
from mst_jax.runs.arrays import flatten, unflatten
from mst_jax.training import plan_resume, plan_run, train, trainer

NAME = "inverted_pendulum"
STEPS, LIMIT = 40, 8
TOPPLES = 0.066  # this constant action ends every episode at its eighth step


def rollout(env, key, actions):
    """First observation and Timesteps [T, ...] of one environment."""
    state, first = env.reset(key)
    return first, jax.lax.scan(env.step, state, actions)[1]


@pytest.fixture(scope="module")
def keys():
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(5))


@pytest.fixture(scope="module")
def actions():
    """Three random policies, one that topples the pole, and one that does nothing: [5, T, 1]."""
    random = np.random.default_rng(0).uniform(-1, 1, (3, STEPS, 1))
    constant = [np.full((1, STEPS, 1), value) for value in (TOPPLES, 0)]
    return np.concatenate([random, *constant]).astype(np.float32)


class Played(NamedTuple):
    """Five vmapped environments with time limit 8, stepped in two halves."""

    firsts: np.ndarray  # [5, 4] observations
    timesteps: envs.Timestep  # [5, T, ...]
    halfway: Any  # the environments' states
    half: Callable  # (states, actions[5, T/2, 1]) -> (states, Timesteps)


@pytest.fixture(scope="module")
def played(keys, actions):
    env = brax.make(NAME, episode_length=LIMIT)
    half = jax.jit(jax.vmap(functools.partial(jax.lax.scan, env.step)))
    states, firsts = jax.jit(jax.vmap(env.reset))(keys)
    halfway, first_half = half(states, actions[:, : STEPS // 2])
    _, second_half = half(halfway, actions[:, STEPS // 2 :])
    join = lambda *halves: np.concatenate(halves, axis=1)  # noqa: E731
    return Played(np.asarray(firsts), jax.tree.map(join, first_half, second_half), halfway, half)


def test_every_step_is_braxs_own_and_episode_n_starts_from_its_reset(played, keys, actions):
    env = brax.load(NAME)
    reset, step = (jax.jit(silently(fn)) for fn in (env.reset, env.step))
    firsts, timesteps, *_ = played
    for key, first, steps, chosen in zip(keys, firsts, rows(timesteps), actions, strict=True):
        episode, count = 0, 0
        state = reset(jax.random.fold_in(key, 0))
        np.testing.assert_allclose(first, state.obs, rtol=1e-6)
        for action, timestep in zip(chosen, rows(steps), strict=True):
            state, count = step(state, action), count + 1
            np.testing.assert_allclose(timestep.next_observation, state.obs, rtol=1e-4, atol=1e-6)
            assert timestep.reward == state.reward
            assert timestep.terminated == (state.done == 1)
            assert timestep.truncated == (count == LIMIT and not timestep.terminated)
            if timestep.terminated or timestep.truncated:
                episode, count = episode + 1, 0
                state = reset(jax.random.fold_in(key, episode))
            np.testing.assert_allclose(timestep.observation, state.obs, rtol=1e-4, atol=1e-6)
        assert episode >= STEPS // LIMIT


def silently(function):
    """Its tracing warns; see `quiet`."""

    def wrapped(*args):
        with quiet():
            return function(*args)

    return wrapped


def rows(timesteps):
    return [envs.Timestep(*fields) for fields in zip(*timesteps, strict=True)]


def test_shapes_types_and_the_final_observation(played):
    timesteps = played.timesteps
    kinds = [np.float32, np.float32, np.bool_, np.bool_, np.float32, np.bool_, np.bool_]
    assert [field.dtype for field in timesteps] == kinds
    assert timesteps.observation.shape == (5, STEPS, 4)
    fallen = timesteps.next_observation[timesteps.terminated]
    assert (np.abs(fallen[:, 1]) > 0.2).all()  # the pole's angle that ends an episode
    ended = timesteps.terminated | timesteps.truncated
    assert (np.abs(timesteps.observation[ended]) <= 0.01).all()  # brax's start noise
    same = timesteps.observation == timesteps.next_observation
    assert same[~ended].all()
    assert not (timesteps.terminated & timesteps.truncated).any()


def test_every_episode_of_every_seed_starts_from_a_state_of_its_own(played):
    firsts, timesteps, *_ = played
    starts = [firsts, timesteps.observation[timesteps.terminated | timesteps.truncated]]
    starts = np.concatenate(starts)
    assert len(starts) > 20
    assert len(np.unique(starts[:, 0])) == len(starts)
    # Uniform in [-0.01, 0.01] (brax's documentation); the mean of n has standard error 0.0058/√n.
    np.testing.assert_allclose(starts.std(), 0.02 / np.sqrt(12), rtol=0.15)
    np.testing.assert_allclose(starts.mean(), 0, atol=4 * 0.0058 / np.sqrt(starts.size))


def test_an_end_at_the_time_limit_is_a_termination_alone(played):
    timesteps = played.timesteps
    last = np.arange(1, STEPS + 1) % LIMIT == 0
    np.testing.assert_array_equal(timesteps.terminated[3], last)
    assert not timesteps.truncated[3].any()
    np.testing.assert_array_equal(timesteps.truncated[4], last)
    assert not timesteps.terminated[4].any()


@pytest.mark.slow
def test_alone_and_in_company_alike(played, keys, actions):
    firsts, timesteps, *_ = played
    env = brax.make(NAME, episode_length=LIMIT)
    run = jax.jit(lambda key, chosen: rollout(env, key, chosen))
    first, alone = run(keys[2], actions[2])
    np.testing.assert_array_equal(first, firsts[2])
    for mine, theirs in zip(alone, timesteps, strict=True):
        np.testing.assert_allclose(mine, theirs[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("brax:fast", "there are ant, halfcheetah, "),
        ("brax:swimmer@spring", "or swimmer?"),
        ("brax:ant@warp", "ant@mjx, ant@positional, ant@spring, "),
        ("brax:inverted-pendulum", "did you mean inverted_pendulum"),
    ],
)
def test_unknown_names_say_what_exists(task, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        envs.make(task)
    assert message in str(caught.value)


def test_names_and_sizes():
    assert len(brax.tasks()) == 11 + 10 * 4 + 1
    spec = envs.make("brax:ant", action_repeat=4).spec
    assert spec == envs.vector_spec("brax:ant", 27, 8, 250, 4)
    with pytest.raises(ValueError, match="action_repeat must divide the time limit 1000; got 3"):
        envs.make("brax:ant", action_repeat=3)
    assert brax.load("ant").backend == "spring"
    assert brax.load("ant@generalized").backend == "generalized"


def test_importing_and_loading_is_silent_and_leaves_no_file(tmp_path):
    code = "from mst_jax import envs; envs.make('brax:halfcheetah')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "MUJOCO_GL"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_states_survive_a_checkpoint_in_mid_episode_bit_for_bit(played, actions, tmp_path):
    checkpoints.save(tmp_path, checkpoints.FULL, STEPS // 2, flatten(played.halfway))
    arrays = checkpoints.load_newest(tmp_path, checkpoints.FULL).arrays
    states = unflatten(arrays, played.halfway)
    assert (np.asarray(states.steps) > 0).any()
    _, timesteps = played.half(states, actions[:, STEPS // 2 :])
    for resumed, whole in zip(timesteps, played.timesteps, strict=True):
        np.testing.assert_array_equal(resumed, whole[:, STEPS // 2 :])


@pytest.mark.slow
def test_a_run_stopped_in_mid_episode_resumes_exactly(tmp_path, monkeypatch):
    settings = small_settings(f"brax:{NAME}", steps=160, eval_every=160, checkpoint_every=0)
    whole = train(plan_run(settings, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_stop_on_signal", stop_at_look(3))
        stopped = train(plan_run(settings, tmp_path / "broken"))
    assert not stopped.finished
    job = plan_resume(stopped.folder)
    assert 0 < job.checkpoint.step < 160
    resumed = train(job)
    assert resumed.fingerprint == whole.fingerprint
    rows = metrics_without_wall_clock(resumed.folder)
    assert rows == metrics_without_wall_clock(whole.folder)


def stop_at_look(number):
    """A stand-in for the signal handlers that asks to stop at the n-th look."""

    @contextmanager
    def handlers():
        looks = iter(range(10**9))
        yield lambda: next(looks) >= number

    return handlers


@pytest.mark.slow
@pytest.mark.parametrize("name", brax.tasks()[:11])
def test_every_environment_with_its_own_backend(name):
    env = brax.make(name)
    chosen = jax.random.uniform(jax.random.key(1), (200, env.spec.action.size), minval=-1)
    first, timesteps = jax.jit(lambda key: rollout(env, key, chosen))(jax.random.key(0))
    assert first.shape == (env.spec.observation.size,)
    assert all(np.isfinite(field).all() for field in timesteps)
    assert (np.diff(timesteps.observation, axis=0) != 0).any(axis=1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", brax.tasks()[11:])
def test_every_backend_loads(name):
    assert brax.make(name).spec.episode_length == 1000
