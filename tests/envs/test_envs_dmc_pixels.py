"""Pictures of the DeepMind Control Suite: stacks, drawing only what is looked at, and bytes.

What draws is skipped where no OpenGL is installed.
"""

import ctypes.util
import os
import subprocess
import sys

import numpy as np
import pytest

from mst_jax import envs
from mst_jax.envs.base import episode_seed
from mst_jax.envs.film import camera as film_camera
from mst_jax.envs.film import opengl
from mst_jax.envs.film.stage import open_stage
from mst_jax.envs.host.worker import Block
from mst_jax.envs.pictures import Pictures
from mst_jax.envs.suites import dmc, dmc_pixels

SMALL_PLAIN = Pictures(32, "plain")
TASK = "dmc_pixels:cartpole-swingup"


@pytest.fixture(scope="module")
def opengl_works():
    try:
        opengl.context(16, 16).free()
    except ValueError as error:
        pytest.skip(str(error))


class Counting:
    """A camera whose pictures are the numbers of pictures drawn before."""

    drawn = 0

    def __init__(self, model, width, height, number, quality):
        self.number, self.shape = number, (height, width, 3)

    def picture(self, data, model):
        Counting.drawn += 1
        return np.full(self.shape, Counting.drawn - 1, np.uint8)


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setattr(film_camera, "Camera", Counting)
    monkeypatch.setattr(dmc_pixels, "_cameras", {})
    Counting.drawn = 0


def numbers(observation):
    """The pictures in stacks, by the number of each."""
    assert observation.shape[-3:] == (32, 32, 9)
    assert observation.dtype == np.uint8
    assert (observation == observation[..., :1, :1, :]).all()
    return observation[..., 0, 0, ::3].tolist()


def actions_for(steps, size=1):
    generator = np.random.default_rng(0)
    return generator.uniform(-1, 1, (steps, size)).astype(np.float32)


def test_the_spec_is_known_without_drawing(monkeypatch):
    monkeypatch.setattr(dmc_pixels, "_cameras", {})
    spec = envs.make("dmc_pixels:quadruped-run").spec
    assert spec.observation == envs.Observation((84, 84, 9), "uint8", history=3, fill="repeat")
    states = envs.make("dmc:quadruped-run").spec
    assert spec == states._replace(task="dmc_pixels:quadruped-run", observation=spec.observation)
    assert envs.make(TASK, action_repeat=4, picture_size=32).spec.observation.shape == (32, 32, 9)
    assert envs.make(TASK, action_repeat=4).spec[3:5] == (250, 4)
    assert dmc_pixels._cameras == {}
    assert envs.tasks("dmc_pixels") == envs.tasks("dmc")


def test_which_tasks_end_early():
    assert not envs.make(TASK).spec.ends_early
    assert envs.make("dmc:lqr-lqr_2_1").spec.ends_early


@pytest.mark.parametrize(
    ("task", "options", "line"),
    [
        (TASK, {"quality": "nice"}, "quality='nice' is none of exact, fast, plain"),
        (TASK, {"picture_size": 8}, r"picture_size=8 must lie in \[16, 512\]"),
        (TASK, {"with_time": "exact"}, "with_time appends a number to flat observations"),
        ("dmc:cartpole-swingup", {"quality": "fast"}, "has no pictures to choose: leave out"),
        ("probe:point", {"picture_size": 32}, "has no pictures to choose: leave out"),
    ],
)
def test_options_that_make_no_sense_are_one_line(task, options, line):
    with pytest.raises(ValueError, match=rf"^[^\n]*{line}[^\n]*$"):
        envs.make(task, **options)


@pytest.mark.parametrize("size", [84.0, "84", None])
def test_a_size_that_is_no_whole_number_is_refused(size):
    with pytest.raises(TypeError, match=r"picture_size is [^\n]*, not an int"):
        envs.make(TASK, picture_size=size)


def test_a_stack_begins_with_the_first_picture_and_moves_by_one(counting):
    env = dmc_pixels.load("cartpole-swingup", 2, SMALL_PLAIN)
    states = dmc.load("cartpole-swingup", 2)
    states.reset(episode_seed(0, 0, 0))
    first = env.reset(episode_seed(0, 0, 0))
    assert numbers(first) == [0, 0, 0]
    seen = []
    for action in actions_for(4):
        observation, *rest = env.step(action)
        assert rest == list(states.step(action)[1:])
        seen.append(numbers(observation))
    assert seen == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    observation[:] = 255  # what was handed out is the caller's
    assert numbers(env.step(action)[0]) == [3, 4, 5]
    assert numbers(env.reset(episode_seed(0, 0, 1))) == [6, 6, 6]


def test_physics_that_diverged_costs_the_step_as_among_states(counting, monkeypatch):
    env = dmc_pixels.load("cartpole-swingup", 2, SMALL_PLAIN)
    env.reset(episode_seed(0, 0, 0))
    ended = (np.array([0.0, np.nan]), 1.0, False, False)
    monkeypatch.setattr(dmc.DmcEnv, "step", lambda self, action: ended)
    for take in (env.step, env.skip):
        with pytest.raises(FloatingPointError, match="the state is not finite"):
            take(np.zeros(1, np.float32))


@pytest.mark.parametrize(("name", "number"), [("quadruped-run", 2), ("cartpole-swingup", 0)])
def test_which_camera_looks(counting, name, number):
    env = dmc_pixels.load(name, 2, SMALL_PLAIN)
    env.reset(episode_seed(0, 0, 0))
    (camera,) = dmc_pixels._cameras.values()
    assert camera.number == number < env.scene()[0].ncam


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 10])
def test_replaying_an_episode_draws_what_is_shown_and_no_more(counting, steps):
    def make():
        return dmc_pixels.load("cartpole-swingup", 2, SMALL_PLAIN)

    block = Block(make, np.array([[3, 0]]), make().spec.observation)
    (record,) = block.start([5], [actions_for(steps)])
    assert Counting.drawn == 1 + min(steps, 3)
    first = [0] * max(3 - steps, 0)
    assert numbers(record["observation"]) == first + list(range(1, 4))[: min(steps, 3)]


def test_without_opengl_one_line_says_so_before_anything_is_started(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    opengl.require_renderer.cache_clear()
    task = envs.make(TASK)
    for begin in (task.preflight, lambda: task.vector([(0, 0)])):
        with pytest.raises(ValueError, match=r"^pictures need EGL or OSMesa[^\n]*apt-get install"):
            begin()


def test_opengl_that_fails_or_crashes_is_one_line(monkeypatch):
    monkeypatch.setattr(opengl, "chosen", lambda: "egl")
    for program, why in [
        ("import sys; sys.exit('RuntimeError')", "RuntimeError"),
        ("import os; os.abort()", "exit code -6"),
    ]:
        monkeypatch.setattr(opengl, "command", lambda name, p=program: [sys.executable, "-c", p])
        opengl.require_renderer.cache_clear()
        with pytest.raises(ValueError, match=rf"^MuJoCo cannot draw by egl here \({why}\)[^\n]*$"):
            opengl.require_renderer()


@pytest.mark.parametrize(
    ("name", "software"), [("llvmpipe (LLVM 15)", True), ("NVIDIA H100/PCIe/SSE2", False)]
)
def test_what_draws_is_said_once(monkeypatch, capsys, name, software):
    program = f"print({name!r})"
    monkeypatch.setattr(opengl, "chosen", lambda: "egl")
    monkeypatch.setattr(opengl, "command", lambda module: [sys.executable, "-c", program])
    opengl.require_renderer.cache_clear()
    opengl.require_renderer()
    opengl.require_renderer()
    opengl.require_renderer.cache_clear()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"pictures are drawn by egl: {name}")
    assert ("in software" in line) == software


BYTES = """
import numpy as np
from mst_jax.envs.base import episode_seed
from mst_jax.envs.pictures import Pictures
from mst_jax.envs.suites import dmc_pixels
kept = []  # a context that is freed while another is current takes the other's objects with it
for name, camera in (("cartpole-swingup", 0), ("walker-walk", 0), ("quadruped-run", 2)):
    env = dmc_pixels.load(name, 2, Pictures())
    kept.append(env)
    shown = env.reset(episode_seed(7, 0, 1))
    for _ in range(2):
        theirs = env._env._environment.physics.render(84, 84, camera_id=camera)
        print(name, np.array_equal(theirs, shown[..., 6:]), theirs.std() > 10)
        shown, *_ = env.step(np.full(env.spec.action.size, 0.5, np.float32))
"""


@pytest.mark.usefixtures("opengl_works")
def test_exact_pictures_are_dm_controls_own_bytes():
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", BYTES],
        env=os.environ | {"MUJOCO_GL": opengl.chosen(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    names = ("cartpole-swingup", "walker-walk", "quadruped-run")
    expected = [f"{name} True True" for name in names for _ in range(2)]
    assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.usefixtures("opengl_works")
def test_qualities_and_that_the_model_stays_as_it_is():
    drawn = {}
    for quality in ("exact", "fast", "plain"):
        env = dmc_pixels.load("cartpole-swingup", 2, Pictures(84, quality))
        drawn[quality] = env.reset(episode_seed(0, 0, 0)).astype(int)
        visual = env.scene()[0].vis
        assert (visual.quality.shadowsize, visual.quality.offsamples) == (2048, 4)
        assert visual.global_.offwidth == 640
    assert drawn["plain"].std() > 5
    assert np.abs(drawn["fast"] - drawn["exact"]).mean() < 0.5
    assert np.abs(drawn["plain"] - drawn["exact"]).mean() > 5


@pytest.mark.slow
@pytest.mark.usefixtures("opengl_works")
def test_environments_that_share_a_camera_see_their_own_terrain():
    def pictures(pair, order):
        dmc_pixels._cameras.clear()
        made = [dmc_pixels.load("quadruped-escape", 2, SMALL_PLAIN) for _ in pair]
        shown = [
            [env.reset(episode_seed(seed, 0, 0)) for env, seed in zip(made, pair, strict=True)]
        ]
        for action in actions_for(2, 12):
            shown.append([made[number].step(action)[0] for number in order])
        return shown

    together = pictures((1, 2), (0, 1))
    for number, seed in enumerate((1, 2)):
        alone = pictures((seed,), (0,))
        np.testing.assert_array_equal([s[number] for s in together], [s[0] for s in alone])
    assert not np.array_equal(together[0][0], together[0][1])


@pytest.mark.usefixtures("opengl_works")
def test_the_contract_and_resuming_in_mid_episode(capsys):
    task = envs.make(TASK, picture_size=32, quality="plain")
    assert envs.check(task, steps=8) == []
    with task.vector([(0, 0), (0, 1)], workers=2) as env:
        env.reset()
        for action in actions_for(6, 2)[..., None]:
            timestep = env.step(action)
        snapshot = env.snapshot()
        following = env.step(action)
    with task.vector([(0, 0), (0, 1)], workers=1) as env:
        np.testing.assert_array_equal(env.restore(snapshot), timestep.observation)
        np.testing.assert_array_equal(env.step(action).observation, following.observation)
    assert timestep.observation.std() > 5
    assert not np.array_equal(*timestep.observation)


@pytest.mark.usefixtures("opengl_works")
def test_a_film_shows_the_tasks_own_episode_in_full():
    stage = open_stage(TASK, action_repeat=4, picture_size=32, quality="plain")
    env = dmc_pixels.load("cartpole-swingup", 4, SMALL_PLAIN)
    start = episode_seed(1, 2, 3)
    np.testing.assert_array_equal(stage.reset(start), env.reset(start))
    usual = film_camera.Camera(stage.model)
    picture = usual.picture(stage.data())
    assert picture.shape == (240, 320, 3)
    assert picture[:40].mean() > 30  # the sky, which the agent does not see
    usual.close()
    (action,) = actions_for(1)
    np.testing.assert_array_equal(stage.step(action)[0], env.step(action)[0])
    assert stage.seconds == pytest.approx(0.04)
