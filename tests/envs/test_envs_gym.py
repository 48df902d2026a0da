"""The Gymnasium adapter against Gymnasium's own stepping, and its conventions by hand."""

import os
import subprocess
import sys

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("mujoco")

from mst_jax import envs  # noqa: E402
from mst_jax.envs.base import episode_seed  # noqa: E402
from mst_jax.envs.quiet import quiet  # noqa: E402
from mst_jax.envs.spaces import Continuous  # noqa: E402
from mst_jax.envs.suites import gym  # noqa: E402

TRIPLE = (7, 2, 5)  # seed, environment index, episode number
FAST = [
    *("InvertedPendulum-v4", "InvertedPendulum-v5", "Walker2d-v4", "HalfCheetah-v5"),
    *("Pendulum-v1", "MountainCarContinuous-v0"),
]


def actions_for(environment, steps):
    generator = np.random.default_rng(0)
    return generator.uniform(-1, 1, (steps, environment.spec.action.size)).astype(np.float32)


@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize("name", FAST)
def test_equal_to_gymnasiums_own_stepping_to_the_last_bit(name, repeat):
    with quiet():  # it calls v4 out of date
        environment, theirs = gym.GymEnv(name, repeat), gymnasium.make(name)
    environment.reset(episode_seed(0, 0, 0))  # a life before
    seed = int.from_bytes(episode_seed(*TRIPLE).generate_state(4).tobytes(), "little")
    expected, _ = theirs.reset(seed=seed)
    observation = environment.reset(episode_seed(*TRIPLE))
    assert observation.dtype == np.float32
    np.testing.assert_array_equal(observation, np.float32(expected))
    low, high = np.float64(theirs.action_space.low), np.float64(theirs.action_space.high)
    for action in actions_for(environment, 30):
        total, ended = 0.0, False
        for _ in range(repeat):
            own = (low + high) / 2 + (high - low) / 2 * action
            expected, reward, terminated, truncated, _ = theirs.step(own)
            total, ended = total + reward, terminated or truncated
            if ended:
                break
        observation, reward, *flags = environment.step(action)
        np.testing.assert_array_equal(observation, np.float32(expected))
        assert reward == total
        assert flags == [terminated, truncated and not terminated]
        if ended:
            break
    assert np.abs(observation).max() > 0


@pytest.mark.parametrize(
    ("name", "observation_size", "action", "length"),
    [
        ("InvertedPendulum-v5", 4, Continuous(1, (-3.0,), (3.0,)), 1000),
        ("InvertedPendulum-v4", 4, Continuous(1, (-3.0,), (3.0,)), 1000),
        ("Walker2d-v4", 17, Continuous(6), 1000),
        ("Ant-v4", 27, Continuous(8), 1000),
        ("Ant-v5", 105, Continuous(8), 1000),
        ("HalfCheetah-v5", 17, Continuous(6), 1000),
        ("Humanoid-v5", 348, Continuous(17, (-0.4,) * 17, (0.4,) * 17), 1000),
        ("Reacher-v5", 10, Continuous(2), 50),
        ("Pendulum-v1", 3, Continuous(1, (-2.0,), (2.0,)), 200),
        ("MountainCarContinuous-v0", 2, Continuous(1), 999),
    ],
)
def test_sizes_and_the_units_of_actions(name, observation_size, action, length):
    spec = envs.make(f"gym:{name}").spec
    plain = envs.vector_spec(f"gym:{name}", observation_size, action.size, length, 1)
    assert spec == plain._replace(action=action)


def test_an_action_of_one_is_the_upper_bound():
    environment = gym.GymEnv("Pendulum-v1", 1)  # torque in [-2, 2]
    environment.reset(episode_seed(*TRIPLE))
    environment.step(np.array([0.75], np.float32))
    assert environment._environment.unwrapped.last_u == 1.5


@pytest.mark.parametrize(("repeat", "length"), [(1, 200), (3, 67)])
def test_the_time_limit_truncates(repeat, length):
    environment = gym.GymEnv("Pendulum-v1", repeat)
    assert environment.spec.episode_length == length
    environment.reset(episode_seed(*TRIPLE))
    flags = [environment.step(np.zeros(1, np.float32))[2:] for _ in range(length)]
    assert flags == [(False, False)] * (length - 1) + [(False, True)]
    if repeat == 3:  # the last agent step is two thirds of one: 200 = 66 * 3 + 2
        assert environment._environment._elapsed_steps == 200


def test_a_fallen_pole_terminates_even_at_the_time_limit():
    environment = gym.GymEnv("InvertedPendulum-v5", 1)

    def length_of_an_episode():
        environment.reset(episode_seed(*TRIPLE))
        for number in range(1, 100):
            _, _, terminated, truncated = environment.step(np.ones(1, np.float32))
            if terminated:
                assert not truncated
                return number
        raise AssertionError("it did not fall")

    steps = length_of_an_episode()
    environment._environment._max_episode_steps = steps
    assert length_of_an_episode() == steps


@pytest.mark.parametrize("name", gym.tasks())
def test_an_episode_depends_on_nothing_before_it(name):
    fresh, used = gym.GymEnv(name, 2), gym.GymEnv(name, 2)
    actions = actions_for(fresh, 10)
    play(used, actions[::-1], (1, 1, 2))
    np.testing.assert_array_equal(play(used, actions), play(fresh, actions))
    assert not np.array_equal(play(used, actions, (7, 2, 6)), play(used, actions))


def play(environment, actions, triple=TRIPLE):
    """All that an episode returns, in one float64 vector."""
    parts = [environment.reset(episode_seed(*triple))]
    for action in actions:
        observation, reward, terminated, truncated = environment.step(action)
        parts += [observation, [reward, terminated, truncated]]
        if terminated or truncated:
            break
    return np.concatenate(parts)


def test_workers_restart_and_restore_bit_for_bit():
    task = envs.make("gym:InvertedPendulum-v5")
    actions = np.random.default_rng(1).uniform(-1, 1, (60, 2, 1)).astype(np.float32)
    with task.vector([(1, 0), (1, 1)], workers=2) as environments:
        environments.reset()
        steps = [environments.step(action) for action in actions[:45]]
        snapshot = environments.snapshot()
        expected = [environments.step(action) for action in actions[45:]]
    assert snapshot["episode"].min() > 0
    ended = np.array([step.terminated for step in steps])
    final = np.array([step.next_observation for step in steps])[ended]
    fresh = np.array([step.observation for step in steps])[ended]
    assert (np.abs(final[:, 1]) > 0.2).all()  # the angle that ends an episode
    assert (np.abs(fresh) <= 0.01).all()  # Gymnasium's start noise
    assert len(np.unique(fresh, axis=0)) == len(fresh)
    with task.vector([(1, 0), (1, 1)], workers=1) as environments:
        np.testing.assert_array_equal(environments.restore(snapshot), steps[-1].observation)
        for action, step in zip(actions[45:], expected, strict=True):
            for mine, theirs in zip(environments.step(action), step, strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_only_tasks_that_can_be_made_are_listed():
    assert {"Ant-v4", "Ant-v5", "Humanoid-v5", "Pendulum-v1"} <= set(gym.tasks())
    assert len(gym.tasks()) == 10 + 11 + 2
    with pytest.raises(ValueError, match=r"'Ant-v9' in suite 'gym': did you mean Ant-v[45]"):
        envs.make("gym:Ant-v9")
    with pytest.raises(ValueError, match=r"^gym:Pusher-v4 cannot be made: .*mujoco<3[^\n]*$"):
        envs.make("gym:Pusher-v4")
    with pytest.raises(ValueError, match="gym:Ant-v2 cannot be made: ImportError: The mujoco v2"):
        envs.make("gym:Ant-v2")


def test_loading_is_silent_leaves_no_file_and_imports_no_jax(tmp_path):
    code = (
        "import sys; from mst_jax import envs; import mst_jax.envs.host.worker\n"
        "envs.make('gym:HalfCheetah-v4'); envs.make('gym:Pendulum-v1')\n"
        "assert 'jax' not in sys.modules"
    )
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


OWN = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Mine(gymnasium.Env):
    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action.astype(self.action_space.dtype))
        return self.observation_space.sample(), 1.0, False, False, {}


def box(*shape, low=-1.0, dtype=np.float32):
    return spaces.Box(low, 255 if dtype == np.uint8 else np.inf, shape, dtype)


NESTED = spaces.Dict({"arm": box(3), "hand": spaces.Dict({"open": spaces.Discrete(2)})})
PICTURE = box(8, 8, 3, low=0, dtype=np.uint8)
WORDS = spaces.Sequence(spaces.Discrete(3))
for name, observation, action, limit in [
    ("Mine", box(3), box(2, low=0.0), 7),
    ("Nested", NESTED, box(2), 7),
    ("Grid", box(2, 2), box(2), 7),
    ("Discrete", box(3), spaces.Discrete(4), 7),
    ("Table", box(3), box(2, 2), 7),
    ("Pictures", PICTURE, box(2), 7),
    ("Seen", spaces.Dict({"arm": box(3), "eye": PICTURE}), box(2), 7),
    ("Words", WORDS, box(2), 7),
    ("Endless", box(3), box(2), None),
]:
    gymnasium.register(
        f"{name}-v0",
        Mine,
        max_episode_steps=limit,
        kwargs={"observation_space": observation, "action_space": action},
    )
gymnasium.register("Broken-v0", lambda: 1 / 0, max_episode_steps=7)
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module that registers environments, on the path and not imported yet."""
    (tmp_path / "my_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    yield
    sys.modules.pop("my_module", None)


HALF = Continuous(2, (0.0, 0.0), (2.0, 2.0))  # [0, inf) is driven within [0, 2]
BOTH = Continuous(2)


@pytest.mark.parametrize(
    ("name", "size", "action"), [("Mine", 3, HALF), ("Nested", 5, BOTH), ("Grid", 4, BOTH)]
)
def test_tasks_that_users_register_are_trained_in_workers(own_module, name, size, action):
    """Fault D11: by the ecosystem's `module:ID`, and by `ID` once it is registered."""
    for task_name in (f"gym:my_module:{name}-v0", f"gym:{name}-v0"):
        task = envs.make(task_name)
        assert task.spec == envs.vector_spec(task_name, size, 2, 7, 1)._replace(action=action)
        with task.vector([(0, 0)]) as environments:
            assert environments.reset().shape == (1, size)
            steps = [environments.step(np.full((1, 2), a, "f4")) for a in np.linspace(-1, 1, 7)]
            assert environments.errors.tolist() == [0]
        assert [bool(step.truncated[0]) for step in steps] == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my_module:Discrete-v0",
            "gym:Discrete-v0: its actions are discrete; the agents here",
        ),
        ("CartPole-v1", "gym:CartPole-v1: its actions are discrete; this suite takes"),
        ("my_module:Table-v0", "its actions are Box(-1.0, inf, (2, 2), float32); the agents here"),
        ("my_module:Pictures-v0", "its observations hold pictures; this suite takes a vector"),
        ("my_module:Seen-v0", "its observations hold pictures; this suite takes a vector"),
        ("my_module:Words-v0", "its observations, Sequence("),
        ("my_module:Endless-v0", "gym:Endless-v0 has no time limit, and evaluations play whole"),
        ("my_module:Broken-v0", "cannot be made: ZeroDivisionError: division by zero"),
        ("my_module:Absent-v0", "unknown task 'gym:my_module:Absent-v0': Environment `Absent` doe"),
        ("no_module:Mine-v0", "importing 'no_module', which is to register 'Mine-v0', failed: Mod"),
        ("Nope", "Walker2d-v5; gym:MODULE:ID imports the module that registers a task of yours"),
        (
            "Absent-v0",
            "Ant-v5 or Ant-v4? gym:MODULE:ID imports the module that registers a task of yours",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line(own_module, name, message):
    """Fault D11."""
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        envs.make(f"gym:{name}")
    assert message in str(caught.value)
