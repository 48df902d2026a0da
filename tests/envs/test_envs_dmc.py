"""The dm_control adapter against dm_control's own stepping, and its conventions by hand."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mst_jax import envs
from mst_jax.envs.base import episode_seed
from mst_jax.envs.suites import dmc

from dm_control import suite  # isort: skip  (after dmc, which chooses the renderer)
from dm_control.rl import control  # isort: skip
from dm_control.suite import cartpole  # isort: skip
from dm_env import specs  # isort: skip

TRIPLE = (7, 2, 5)  # seed, environment index, episode number
WRITE_THE_MODEL = ["reacher-hard", "point_mass-hard", "finger-turn_hard", "manipulator-bring_ball"]


def flatten(observation):
    return np.concatenate([np.ravel(value) for value in observation.values()])


def actions_for(environment, steps, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (steps, environment.spec.action.size)).astype(np.float32)


def rollout(environment, actions, triple=TRIPLE):
    """All that an episode returns, in one float64 vector."""
    parts = [environment.reset(episode_seed(*triple))]
    for action in actions:
        observation, reward, terminated, truncated = environment.step(action)
        parts += [observation, [reward, terminated, truncated]]
    return np.concatenate(parts)


@pytest.mark.parametrize("repeat", [1, 2, 3])
@pytest.mark.parametrize("name", ["cartpole-swingup", "ball_in_cup-catch", "hopper-hop"])
def test_equal_to_dm_controls_own_stepping_to_the_last_bit(name, repeat):
    check_against_dm_control(name, repeat, steps=40)


@pytest.mark.parametrize(
    "name", [*WRITE_THE_MODEL, "dog-run", "humanoid-run", "quadruped-walk", "cheetah-run"]
)
def test_equal_to_dm_controls_own_stepping_of_bigger_tasks(name):
    check_against_dm_control(name, repeat=2, steps=12)


def check_against_dm_control(name, repeat, steps):
    environment = dmc.load(name, repeat)
    environment.reset(episode_seed(0, 0, 0))  # a life before
    state = np.random.RandomState(episode_seed(*TRIPLE).generate_state(8))
    theirs = suite.load(*name.split("-", 1), task_kwargs={"random": state})
    expected = theirs.reset().observation
    observation = environment.reset(episode_seed(*TRIPLE))
    assert observation.dtype == np.float32
    np.testing.assert_array_equal(observation, flatten(expected).astype(np.float32))
    bounds = theirs.action_spec()
    for action in actions_for(environment, steps):
        wide = action.astype(np.float64)
        middle, half = (
            (bounds.maximum + bounds.minimum) / 2,
            (bounds.maximum - bounds.minimum) / 2,
        )
        own = [theirs.step(middle + half * wide) for _ in range(repeat)]
        observation, reward, terminated, truncated = environment.step(action)
        np.testing.assert_array_equal(observation, flatten(own[-1].observation).astype(np.float32))
        assert reward == sum(step.reward for step in own)
        assert not terminated
        assert not truncated
    assert np.abs(observation).max() > 0


@pytest.mark.parametrize(
    ("name", "observation_size", "action_size"),
    [
        ("dog-run", 223, 38),
        ("humanoid-run", 67, 21),
        ("humanoid_CMU-run", 137, 56),
        ("cartpole-swingup", 5, 1),
        ("ball_in_cup-catch", 8, 2),
        ("pendulum-swingup", 3, 1),
    ],
)
def test_sizes(name, observation_size, action_size):
    spec = envs.make(f"dmc:{name}").spec
    wanted = envs.vector_spec(f"dmc:{name}", observation_size, action_size, 500, 2)
    assert spec == wanted._replace(ends_early=False)


def test_episode_length_follows_the_repeat():
    lengths = [dmc.load("cartpole-balance", repeat).spec.episode_length for repeat in (1, 3, 7)]
    assert lengths == [1000, 334, 143]  # the last agent step may be a short one
    assert dmc.load("lqr-lqr_2_1", 2).spec.episode_length is None


def test_fields_are_flattened_in_dm_controls_order():
    observation = {"second": np.array([[1.0, 2.0], [3.0, 4.0]]), "first": 5.0, "none": np.zeros(0)}
    found, size = dmc.slots(observation)
    assert size == 5
    assert found == [("second", slice(0, 4)), ("first", slice(4, 5)), ("none", slice(5, 5))]
    humanoid = suite.load("humanoid", "run")
    names = [name for name, _ in dmc.slots(humanoid.reset().observation)[0]]
    expected = "joint_angles head_height extremities torso_vertical com_velocity velocity"
    assert names == expected.split()


class Scripted(cartpole.Balance):
    """Cartpole with bounds [0, 4], reward = control + step number, and a scripted end."""

    def __init__(self, ends_at, discount):
        super().__init__(swing_up=False, sparse=False)
        self.ends_at, self.discount = ends_at, discount

    def initialize_episode(self, physics):
        self.steps = 0
        super().initialize_episode(physics)

    def action_spec(self, physics):
        return specs.BoundedArray((1,), float, minimum=[0.0], maximum=[4.0])

    def before_step(self, action, physics):
        self.steps += 1
        self.control = float(action[0])
        super().before_step(action / 4, physics)

    def get_reward(self, physics):
        return self.control + 100 * self.steps

    def get_termination(self, physics):
        return self.discount if self.steps == self.ends_at else None


def scripted(ends_at=None, discount=None, limit=100, repeat=2):
    physics = cartpole.Physics.from_xml_string(*cartpole.get_model_and_assets())
    time_limit = limit * physics.timestep()
    environment = control.Environment(physics, Scripted(ends_at, discount), time_limit=time_limit)
    wrapped = dmc.DmcEnv(environment, "fake:scripted", repeat)
    wrapped.reset(episode_seed(0, 0, 0))
    return wrapped


def test_rewards_are_summed_over_the_repeat_of_a_scaled_action():
    environment = scripted()
    rewards = [environment.step(np.array([a], np.float32))[1] for a in (-1, 0, 1)]
    assert rewards == [100 + 200, 300 + 400 + 2 * 2, 500 + 600 + 2 * 4]


@pytest.mark.parametrize(
    ("settings", "last", "flags"),
    [
        ({"limit": 3}, 300.0, (False, True)),  # the time limit cuts the second step in half
        ({"limit": 4}, 700.0, (False, True)),
        ({"ends_at": 3, "discount": 0.0}, 300.0, (True, False)),
        ({"ends_at": 4, "discount": 0.0}, 700.0, (True, False)),
        ({"ends_at": 3, "discount": 1.0}, 300.0, (False, True)),
        ({"ends_at": 3, "discount": 0.0, "limit": 3}, 300.0, (False, True)),  # as dm_control
    ],
)
def test_the_repeat_stops_at_the_end_of_the_episode(settings, last, flags):
    environment = scripted(**settings)
    action = np.array([-1], np.float32)  # scaled to 0
    assert environment.step(action)[1:] == (300.0, False, False)
    observation, reward, *ends = environment.step(action)
    assert (reward, tuple(ends)) == (last, flags)
    steps = environment._environment.task.steps
    assert steps == (3 if last == 300.0 else 4)  # not one more
    np.testing.assert_array_equal(
        observation, flatten(environment._task.get_observation(environment._physics)).astype("f4")
    )
    environment.reset(episode_seed(0, 0, 1))
    assert environment.step(action)[1:] == (300.0, False, False)


def test_episodes_of_other_seeds_indices_and_numbers_differ():
    environment = dmc.load("cartpole-swingup", 2)
    actions = actions_for(environment, 3)
    triples = [TRIPLE, (8, 2, 5), (7, 3, 5), (7, 2, 6), (2, 7, 5)]
    episodes = [rollout(environment, actions, triple) for triple in triples]
    for i, one in enumerate(episodes):
        assert not any(np.array_equal(one, other) for other in episodes[:i])


def check_independence_of_the_past(name, steps):
    fresh, used = dmc.load(name, 2), dmc.load(name, 2)
    actions = actions_for(fresh, steps)
    rollout(used, actions, (1, 1, 1))
    rollout(used, actions[::-1], (1, 1, 2))
    np.testing.assert_array_equal(rollout(used, actions), rollout(fresh, actions))


@pytest.mark.parametrize("name", [*WRITE_THE_MODEL, "quadruped-escape", "lqr-lqr_2_1"])
def test_an_episode_depends_on_nothing_before_it(name):
    check_independence_of_the_past(name, steps=12)


@pytest.mark.slow
@pytest.mark.parametrize("name", dmc.tasks())
def test_every_task_of_the_suite(name):
    check_independence_of_the_past(name, steps=40)


def test_a_long_contact_rich_episode_is_replayed_exactly():
    first, second = dmc.load("walker-walk", 2), dmc.load("walker-walk", 2)
    actions = actions_for(first, 150)
    np.testing.assert_array_equal(rollout(first, actions), rollout(second, actions))


def test_loading_is_silent_leaves_no_file_and_imports_no_jax(tmp_path):
    code = (
        "import sys; from mst_jax import envs; import mst_jax.envs.host.worker\n"
        "task = envs.make('dmc:stacker-stack_2'); envs.make('dmc:dog-run')\n"
        "assert 'jax' not in sys.modules\n"
        "import os; assert os.environ['MUJOCO_GL'] == 'disabled'"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    named = "ignore:Setting the shape on a NumPy array:DeprecationWarning"  # as in pyproject.toml
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", named, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
