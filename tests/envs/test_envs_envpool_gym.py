"""EnvPool's versions of Gymnasium's MuJoCo tasks against Gymnasium from the same states."""

import mujoco
import numpy as np
import pytest

pytest.importorskip("envpool")
pytest.importorskip("gymnasium")

from mst_jax import envs
from mst_jax.envs.base import episode_seed
from mst_jax.envs.suites import envpool, gym

NAMES = [name for name in gym.tasks() if name not in gym.CLASSIC]
HUMANOIDS = [name for name in NAMES if name.startswith("Humanoid")]
HOPPER = "envpool:Hopper-v4"


def random_actions(steps, size):
    generator = np.random.default_rng(0)
    return generator.uniform(-1, 1, (steps, 1, size)).astype(np.float32)


def read_state(name, own, shown):
    """Positions and velocities behind an observation; what depends on no place begins at 0."""
    positions, velocities = own.model.nq, own.model.nv
    kind = name.partition("-")[0]
    if kind == "InvertedDoublePendulum":
        return [shown[0], *np.arctan2(shown[1:3], shown[3:5])], shown[5:8]
    if kind == "Reacher":
        return [*np.arctan2(shown[2:4], shown[:2]), *shown[4:6]], [*shown[6:8], 0, 0]
    if kind == "Pusher":
        mujoco.mj_resetData(own.model, own.data)
        mujoco.mj_forward(own.model, own.data)
        slid = [shown[17:20] - own.get_body_com("object"), shown[20:] - own.get_body_com("goal")]
        return [*shown[:7], *(slid[i][axis] for i in (0, 1) for axis in (1, 0))], [
            *shown[7:14],
            *np.zeros(4),
        ]
    unseen = {"InvertedPendulum": 0, "HalfCheetah": 1, "Hopper": 1, "Walker2d": 1}.get(kind, 2)
    seen = positions - unseen
    return [*np.zeros(unseen), *shown[:seen]], shown[seen : seen + velocities]


def gymnasium_in(name, shown):
    """Gymnasium's environment in the state that EnvPool shows."""
    env = gym.GymEnv(name, 1)
    env.reset(episode_seed(0, 0, 0))
    own = env._environment.unwrapped
    position, velocity = (np.array(part) for part in read_state(name, own, shown))
    mujoco.mj_resetData(own.model, own.data)
    own.set_state(position, velocity)
    if name.startswith("Reacher"):
        own.goal = position[2:]
    return env, own._get_obs()


@pytest.mark.parametrize("name", NAMES)
def test_from_the_same_state_observations_rewards_and_ends_are_gymnasiums(name):
    """The humanoids fall onto the ground at once, where MuJoCo's solver stops at a tolerance."""
    steps, tolerance = (8, 1e-3) if name in HUMANOIDS else (25, 1e-5)
    task = envs.make(f"envpool:{name}")
    rewards = []
    with task.vector([(7, 0)]) as env:
        env.reset()
        shown = env._pool.reset(np.array([0])).observation.obs[0]  # episode 1, float64
        mine = env.restore({**env.snapshot(), "episode": np.array([1])})
        theirs, first = gymnasium_in(name, shown)
        np.testing.assert_allclose(mine[0], first, 1e-6, 1e-6)
        for action in random_actions(steps, task.spec.action.size):
            timestep = env.step(action)
            observation, reward, terminated, truncated = theirs.step(action[0])
            np.testing.assert_allclose(
                timestep.next_observation[0], observation, tolerance, tolerance
            )
            np.testing.assert_allclose(timestep.reward[0], reward, tolerance, tolerance)
            assert (timestep.terminated[0], timestep.truncated[0]) == (terminated, truncated)
            rewards.append(reward)
            if terminated:
                break
    assert len(rewards) > 2


@pytest.mark.parametrize("name", NAMES)
def test_sizes_limits_and_units_are_gymnasiums(name):
    spec, theirs = envs.make(f"envpool:{name}").spec, envs.make(f"gym:{name}").spec
    assert spec == theirs._replace(task=f"envpool:{name}")


@pytest.mark.parametrize(("repeat", "length"), [(1, 50), (3, 17)])
def test_the_time_limit_truncates(repeat, length):
    task = envs.make("envpool:Reacher-v4", action_repeat=repeat)
    assert task.spec.episode_length == length
    with task.vector([(0, 0), (0, 1)]) as env:
        first = env.reset()
        steps = [env.step(np.zeros((2, 2), np.float32)) for _ in range(2 * length)]
    ends = np.array([step.truncated for step in steps])
    np.testing.assert_array_equal(np.flatnonzero(ends[:, 0]), [length - 1, 2 * length - 1])
    np.testing.assert_array_equal(ends[:, 0], ends[:, 1])
    assert not any(step.terminated.any() for step in steps)
    targets = np.array([first[0], steps[length - 1].observation[0]])[:, 4:6]
    assert (targets[0] != targets[1]).all()


def length_of_an_episode(task):
    """Steps until it ends, and how it ends."""
    with task.vector([(7, 2)]) as env:
        env.reset()
        for number in range(1, 100):
            step = env.step(np.ones((1, 3), np.float32))
            if step.over[0]:
                return number, bool(step.terminated[0]), bool(step.truncated[0])
    raise AssertionError("it did not fall")


def test_a_fall_at_the_time_limit_terminates():
    """EnvPool itself would call it truncated."""
    steps, *ends = length_of_an_episode(envs.make(HOPPER))
    assert ends == [True, False]
    spec, source = envs.make(HOPPER).vector.args
    source = source._replace(limit=steps, options={"max_episode_steps": steps + 1})
    vector = lambda seeds: envpool.EnvpoolVectorEnv(spec, source, seeds)  # noqa: E731
    assert length_of_an_episode(envs.HostTask(spec, vector)) == (steps, True, False)


def test_restored_bit_for_bit_in_a_later_episode():
    task = envs.make(HOPPER)
    actions = random_actions(170, 3)
    with task.vector([(3, 0)]) as env:
        env.reset()
        for action in actions[:160]:
            shown = env.step(action).observation
        snapshot = env.snapshot()
        expected = [env.step(action) for action in actions[160:]]
    assert snapshot["episode"] > 0
    with task.vector([(3, 0)]) as env:
        np.testing.assert_array_equal(env.restore(snapshot), shown)
        for action, step in zip(actions[160:], expected, strict=True):
            for mine, theirs in zip(env.step(action), step, strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_what_is_not_there_is_one_line():
    for name, near in (("Walker2d-v3", "Walker2d-v[45]"), ("Pusher-v4", "Pusher-v5")):
        with pytest.raises(ValueError, match=rf"'{name}' in suite 'envpool': did you mean {near}"):
            envs.make(f"envpool:{name}")
