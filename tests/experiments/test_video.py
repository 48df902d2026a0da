"""Films: which episode they show, how fast it runs, and what is written."""

import shutil
import subprocess
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import launchers
import numpy as np
import pytest
from PIL import Image
from small_runs import by_default

from experiments import video
from mst_jax import envs
from mst_jax.envs import vector_spec
from mst_jax.program.evaluation import make_evaluator
from mst_jax.training import Policy


class Dice:
    """A stage whose episodes last seven steps of which each pays its number."""

    def __init__(self, seconds):
        self.seconds, self.steps, self.closed = seconds, 0, False

    def reset(self, start):
        return np.full(1, start)

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps), float(self.steps), self.steps == 7

    def picture(self):
        return np.full((48, 64, 3), 30 * self.steps, np.uint8)

    def close(self):
        self.closed = True


class Pinhole:
    """A camera that pictures everything as black."""

    def __init__(self, model):
        pass

    def picture(self, data):
        return np.zeros((48, 64, 3), np.uint8)

    def close(self):
        pass


ANYBODY = SimpleNamespace(act=lambda observation: np.zeros(1))


@pytest.fixture
def pinhole(monkeypatch):
    monkeypatch.setattr("mst_jax.envs.film.stage.Camera", Pinhole)


@pytest.mark.parametrize(
    ("seconds", "shown", "shades"),
    [
        (0.05, 0.05, [0, 1, 2, 3, 4, 5, 6]),
        (0.02, 0.02, [0, 1, 2, 3, 4, 5, 6]),
        (0.01, 0.02, [0, 2, 4, 6]),
        (0.008, 0.024, [0, 3, 6]),
    ],
)
def test_a_film_runs_at_the_simulations_speed(seconds, shown, shades):
    dice = Dice(seconds)
    film = video.Film(dice, ANYBODY, 0)
    assert [int(picture[0, 0, 0]) // 30 for picture in film.pictures()] == shades
    assert film.seconds == pytest.approx(shown)
    assert (film.steps, film.total) == (7, 28.0)
    assert dice.closed


def test_an_action_that_is_not_finite_becomes_zero(monkeypatch):
    stage = Dice(0.05)
    taken = []
    step = stage.step
    monkeypatch.setattr(stage, "step", lambda action: taken.append(action) or step(action))
    agent = stub(lambda state, observation, key, clock: jnp.full(1, jnp.nan))
    policy = Policy(agent, None, vector_spec("fake:dice", 1, 1, 7))
    list(video.Film(stage, policy, 0).pictures())
    assert (np.array(taken) == 0).all()


def stub(act):
    """What an evaluator needs of an agent."""
    value = lambda gain, observation, action: jnp.sum(action)  # noqa: E731
    return SimpleNamespace(act=act, evaluate=None, value=value, discount=0.99)


@pytest.mark.parametrize("num_seeds", by_default([2], [2, 20]))  # in one round, in two
def test_the_film_shows_the_first_episode_of_the_evaluation(pinhole, num_seeds):
    task = envs.make("dmc:pendulum-swingup")
    agent = stub(None)
    agent.evaluate = lambda gain, observation, key: (
        jnp.tanh(gain * observation[2:]) + jax.random.normal(key, (1,))
    )
    seeds, gains = list(range(5, 5 + num_seeds)), jnp.linspace(0.1, 1, num_seeds)
    evaluator = make_evaluator(agent, task, seeds, 2)
    try:
        returns = evaluator(gains, 7).returns
    finally:
        evaluator.close()
    start = video.first_start(task, seeds, 1, 2, 7)
    stage = video.open_stage("dmc:pendulum-swingup")
    key = video.first_key(seeds, 1, 2, 7)
    film = video.Film(stage, Policy(agent, gains[1], task.spec), start, key)
    assert film._observation[2] == 0  # at rest
    assert len(list(film.pictures())) == film.steps == 500
    assert film.total == pytest.approx(returns[1, 0], rel=1e-3, abs=1e-3)
    assert returns[1, 0] != returns[1, 1] or returns[1, 0] == 0


def test_the_film_of_a_jax_task_begins_where_its_evaluation_does():
    env = envs.make("probe:point")
    agent = stub(lambda gain, observation, key, clock: -gain * observation[:2])
    gains = jnp.array([0.5, 1.0])
    returns = make_evaluator(agent, env, [3, 4], 5)(gains, 9).returns
    state, observation = env.reset(video.first_start(env, [3, 4], 1, 5, 9))
    total, ended = 0.0, False
    step = jax.jit(env.step)
    while not ended:
        state, timestep = step(state, agent.act(gains[1], observation, None, None))
        observation, total = timestep.observation, total + float(timestep.reward)
        ended = timestep.terminated | timestep.truncated
    assert total == pytest.approx(returns[1, 0], rel=1e-5)


def test_what_an_agent_sees_is_filmed_where_there_is_nothing_else():
    """Of a pure-JAX task with pictures, grey ones of any number of frames."""
    env, start = envs.make("probe:catch"), video.first_start(envs.make("probe:catch"), [3], 0, 1, 0)
    agent = stub(lambda gain, observation, key, clock: jnp.int32(0))
    stage = video.open_stage("probe:catch")
    film = video.Film(stage, Policy(agent, None, env.spec), start)
    pictures = list(film.pictures())
    assert (len(pictures), film.steps, film.seconds) == (9, 9, 0.2)
    assert abs(film.total) == 1
    assert {(x.shape, x.dtype.name) for x in pictures} == {((240, 120, 3), "uint8")}
    _, shown = env.reset(start)
    np.testing.assert_array_equal(pictures[0][::24, ::24, 0], shown[..., 0])
    rows = [int(x[:216, :, 0].any(axis=1).argmax()) // 24 for x in pictures]
    assert rows == list(range(9))  # the ball falls
    two = video.open_stage("probe:picture_motion")
    two.reset(start)
    assert two.picture().shape == (240, 240, 3)


def shades(count):
    return (np.full((48, 64, 3), 20 * number, np.uint8) for number in range(count))


def test_a_gif_holds_every_picture_for_its_time(tmp_path):
    path = tmp_path / "film.gif"
    video.writer(path)(path, shades(9), 0.0333)
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (9, (64, 48), 30)
        image.seek(8)
        assert np.asarray(image.convert("RGB"))[0, 0, 0] == pytest.approx(160, abs=5)


@pytest.mark.skipif(video.encoder() is None, reason="no ffmpeg")
def test_an_mp4_holds_every_picture_for_its_time(tmp_path):
    path = tmp_path / "film.mp4"
    video.writer(path)(path, shades(9), 0.04)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run([video.encoder(), "-i", path, *raw], capture_output=True, check=True)
    pictures = np.frombuffer(done.stdout, np.uint8).reshape(-1, 48, 64, 3)
    np.testing.assert_allclose(pictures[:, 20, 20, 0], 20 * np.arange(9), atol=6)
    assert "25 fps" in done.stderr.decode()


@pytest.mark.skipif(video.encoder() is None, reason="no ffmpeg")
def test_a_file_that_ffmpeg_cannot_write_is_named(tmp_path):
    with pytest.raises(ValueError, match="ffmpeg could not write"):
        video.write_mp4(tmp_path / "nowhere" / "film.mp4", shades(1), 0.04)


def test_wrong_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"film\.avi must end in \.mp4 or \.gif"):
        video.writer(tmp_path / "film.avi")
    with pytest.raises(ValueError, match="there is no folder"):
        video.writer(tmp_path / "nowhere" / "film.gif")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'mst_jax\[video\]'"):
        video.writer(tmp_path / "film.mp4")


def test_a_task_without_a_picture_is_one_line(finished_run, tmp_path):
    path = tmp_path / "film.gif"
    for arguments in (["evaluate", finished_run, f"--video={path}"], ["video", finished_run, path]):
        done = launchers.run(f"experiments.{arguments[0]}", *arguments[1:])
        assert done.status == 1
        assert done.err.startswith("error: probe:point has no picture; these suites have: atari, ")
        assert done.err.count("\n") == 1
    assert not path.exists()
