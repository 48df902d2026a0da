"""Pictures, and the stages that are pictured."""

import ctypes.util
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mst_jax import envs
from mst_jax.envs.base import episode_seed, vector_spec
from mst_jax.envs.device.episodic import Simulation, episodic
from mst_jax.envs.film import opengl
from mst_jax.envs.film.camera import Camera
from mst_jax.envs.film.stage import HostStage, JaxStage, open_stage
from mst_jax.envs.quiet import quiet

BALL = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="front" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/>
    <body><joint type="slide" axis="0 0 1"/><geom size="0.3" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def ball():
    """Model and state of a red ball that slides up and down in front of a camera."""
    model = mujoco.MjModel.from_xml_string(BALL)
    return model, mujoco.MjData(model)


@pytest.fixture
def camera(ball):
    try:
        opened = Camera(ball[0], width=64, height=48)
    except ValueError as error:
        pytest.skip(str(error))
    yield opened
    opened.close()
    opened.close()  # may be repeated


def test_the_camera_sees_where_the_ball_is(ball, camera):
    _, data = ball

    def place(height):
        data.qpos[:] = height
        mujoco.mj_forward(*ball)
        picture = camera.picture(data).astype(float)
        assert picture.shape == (48, 64, 3)
        red = picture[..., 0] - picture[..., 2] > 30
        rows, columns = np.nonzero(red)
        return rows.mean(), columns.mean(), red.sum()

    middle, high = place(0.0), place(0.8)
    assert middle[0] == pytest.approx(23.5, abs=2)  # the row in the middle
    assert middle[1] == pytest.approx(31.5, abs=2)
    assert high[0] < middle[0] - 8  # up in space is up in the picture
    assert middle[2] > 50


def test_no_way_to_draw_is_one_line(ball, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(ValueError, match=r"^pictures need EGL or OSMesa[^\n]*apt-get install"):
        Camera(ball[0])


@pytest.mark.parametrize("name", ["egl", "osmesa"])
def test_an_opengl_that_is_named_and_not_there_is_one_line(ball, monkeypatch, name):
    monkeypatch.setenv("MUJOCO_GL", name)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    told = rf"^MUJOCO_GL={name}, but [^\n]* is not installed: unset MUJOCO_GL, or apt-get[^\n]*$"
    with pytest.raises(ValueError, match=told):
        Camera(ball[0])
    monkeypatch.delitem(sys.modules, "mst_jax.envs.suites.dmc", raising=False)
    with pytest.raises(ValueError, match=told):  # before dm_control looks for it
        envs.make("dmc:cartpole-swingup")


@pytest.mark.parametrize("name", ["nonsense", "glx"])
def test_an_opengl_that_there_is_not_is_one_line(monkeypatch, name):
    monkeypatch.setenv("MUJOCO_GL", name)
    monkeypatch.delitem(sys.modules, "mst_jax.envs.suites.dmc", raising=False)
    told = rf"^MUJOCO_GL={name} is none of egl, osmesa, glfw and disabled: [^\n]*$"
    with pytest.raises(ValueError, match=told):
        envs.make("dmc:cartpole-swingup")
    with pytest.raises(ValueError, match=told), quiet():
        pass


@pytest.mark.parametrize("name", ["", "glfw", "disabled", "Off", " 0"])
def test_an_opengl_of_windows_or_none_leaves_the_choice_to_films(monkeypatch, name):
    monkeypatch.setenv("MUJOCO_GL", name)
    assert opengl.named() is None


def test_a_broken_driver_is_one_line(ball, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr("mst_jax.envs.film.opengl.import_module", lambda name: None)
    with pytest.raises(ValueError, match=r"^MuJoCo cannot draw by egl here[^\n]*$"):
        Camera(ball[0])


@pytest.mark.parametrize(("task", "repeat"), [("dmc:cartpole-swingup", 2)])
def test_a_host_stage_plays_the_tasks_own_episodes(task, repeat):
    from mst_jax.envs.suites import dmc

    stage = open_stage(task)
    env = dmc.load(task.partition(":")[2], repeat)
    np.testing.assert_array_equal(
        stage.reset(episode_seed(1, 2, 3)), env.reset(episode_seed(1, 2, 3))
    )
    action = np.array([0.5], np.float32)
    observation, reward, ended = stage.step(action)
    expected = env.step(action)
    np.testing.assert_array_equal(observation, expected[0])
    assert (reward, ended) == (expected[1], False)
    assert stage.data().qpos[0] == pytest.approx(observation[0], rel=1e-6)  # the cart
    assert stage.seconds == pytest.approx(0.02)
    assert stage.model.nq == 2


@pytest.mark.parametrize("time", ["exact", "published"])
def test_a_film_shows_the_time_that_the_task_does(time):
    name, action = "dmc:cartpole-swingup", np.zeros(1, np.float32)
    stage = open_stage(name, with_time=time)
    shown = [stage.reset(episode_seed(4, 0, 0)), *(stage.step(action)[0] for _ in range(5))]
    with envs.make(name, with_time=time).vector([(4, 0)]) as task:
        wanted = [task.reset(), *(task.step(action[None]).observation for _ in range(5))]
    np.testing.assert_array_equal(shown, np.concatenate(wanted))
    assert stage._stage.data().qpos[0] == pytest.approx(shown[-1][0], rel=1e-6)


@pytest.mark.parametrize(("name", "size"), [("pendulum-swingup", 3), ("Walker2d-v4", 17)])
def test_envpools_tasks_are_shown_by_those_whose_they_are(name, size):
    pytest.importorskip("envpool")
    stage = open_stage(f"envpool:{name}")
    assert isinstance(stage, HostStage)
    assert stage.reset(episode_seed(0, 0, 0)).shape == (size,)


def test_a_jax_stage_shows_the_worlds_pose(ball):
    simulation = Simulation(
        start=lambda key: jax.random.uniform(key),
        observe=lambda world: world[None],
        advance=lambda world, action: (world + action[0], world, world > 3),
    )
    env = episodic(vector_spec("fake:slide", 1, 1, 3, 1), simulation)
    stage = JaxStage(env, ball[0], 0.1, lambda world: {"qpos": world})
    key = jax.random.key(0)
    first = stage.reset(key)
    np.testing.assert_array_equal(first, env.reset(key)[1])
    height = float(first[0])
    for number in range(3):
        assert stage.data().qpos[0] == pytest.approx(height)
        assert stage.data().geom_xpos[0, 2] == pytest.approx(height)  # forwarded
        _, reward, ended = stage.step(jnp.ones(1))
        assert reward == pytest.approx(height)
        assert ended == (number == 2)
        height += 1


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("probe:point", "probe:point has no picture; these suites have: atari, "),
        ("arcade:pong", "unknown suite 'arcade'"),
    ],
)
def test_tasks_without_a_picture_are_named(task, told):
    with pytest.raises(ValueError, match=told):
        open_stage(task)


def test_classic_tasks_have_no_picture():
    pytest.importorskip("gymnasium")
    with pytest.raises(ValueError, match="gym:Pendulum-v1 has no picture"):
        open_stage("gym:Pendulum-v1")
    assert open_stage("gym:HalfCheetah-v5").seconds == pytest.approx(0.05)


@pytest.mark.slow
def test_brax_poses_are_mujocos():
    stage = open_stage("brax:inverted_pendulum")
    observation = stage.reset(jax.random.key(0))
    for _ in range(3):
        np.testing.assert_allclose(stage.data().qpos, observation[:2], rtol=1e-6)
        observation, _, _ = stage.step(np.full(1, 0.1, np.float32))
    assert stage.seconds == pytest.approx(0.04)


@pytest.mark.slow
def test_playground_targets_are_shown():
    pytest.importorskip("mujoco_playground")
    stage = open_stage("playground:SwimmerSwimmer6")
    targets = []
    for seed in (0, 1):
        stage.reset(jax.random.key(seed))
        targets.append(np.array(stage.data().mocap_pos))
    assert not np.array_equal(*targets)
