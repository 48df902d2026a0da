"""MuJoCo Playground: its own stepping is the oracle; episodes and restarts are tested with brax."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("mujoco_playground")

from mst_jax import envs
from mst_jax.envs.quiet import quiet
from mst_jax.envs.suites import playground

NAME = "CartpoleBalance"
STEPS, LIMIT = 24, 8


def test_sizes_and_names():
    assert envs.make(f"playground:{NAME}").spec == envs.vector_spec(
        f"playground:{NAME}", 5, 1, 1000, 1
    )
    assert playground.load(NAME).mjx_model.impl.value == "jax"
    assert len(playground.tasks()) == 23
    with pytest.raises(ValueError, match="did you mean CartpoleBalance"):
        envs.make("playground:CartPoleBalance")
    with pytest.raises(ValueError, match="unknown task 'Go1Getup'"):
        envs.make("playground:Go1Getup")


@pytest.mark.slow
def test_every_step_is_playgrounds_own_and_episode_n_starts_from_its_reset():
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(3))
    actions = np.random.default_rng(0).uniform(-1, 1, (3, STEPS, 1)).astype(np.float32)
    env = playground.make(NAME, episode_length=LIMIT)

    def rollout(key, chosen):
        state, first = env.reset(key)
        return first, jax.lax.scan(env.step, state, chosen)[1]

    firsts, steps = jax.tree.map(np.asarray, jax.jit(jax.vmap(rollout))(keys, actions))
    last = np.tile(np.arange(1, STEPS + 1) % LIMIT == 0, (3, 1))
    np.testing.assert_array_equal(steps.truncated, last)
    assert not steps.terminated.any()
    starts = np.concatenate([firsts, steps.observation[last]])
    assert len(np.unique(starts[:, 0])) == len(starts) == 12

    theirs = playground.load(NAME)
    with quiet():
        reset, step = jax.jit(theirs.reset), jax.jit(theirs.step)
        for i in range(3):
            for number in range(STEPS):
                if number % LIMIT == 0:
                    state = reset(jax.random.fold_in(keys[i], number // LIMIT))
                    before = steps.observation[i, number - 1] if number else firsts[i]
                    np.testing.assert_allclose(before, state.obs, rtol=1e-5, atol=1e-6)
                state = step(state, actions[i, number])
                mine = steps.next_observation[i, number]
                np.testing.assert_allclose(mine, state.obs, rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(steps.reward[i, number], state.reward, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", playground.tasks())
def test_every_task_steps(name):
    env = playground.make(name, episode_length=4)
    chosen = jax.random.uniform(jax.random.key(1), (9, env.spec.action.size), minval=-1)
    state, first = jax.jit(env.reset)(jax.random.key(0))
    _, steps = jax.jit(lambda state: jax.lax.scan(env.step, state, chosen))(state)
    assert first.shape == (env.spec.observation.size,)
    assert np.flatnonzero(steps.truncated).tolist() == [3, 7]
    assert all(np.isfinite(field).all() for field in steps)
    action_range = playground.load(name).mj_model.actuator_ctrlrange
    np.testing.assert_array_equal(action_range, np.tile([-1.0, 1.0], (len(action_range), 1)))


@pytest.mark.slow
def test_importing_and_loading_is_silent_and_leaves_no_file(tmp_path):
    code = "from mst_jax import envs; envs.make('playground:PendulumSwingup')"
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
