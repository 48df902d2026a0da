"""Atari games: pictures, lives, no-ops and ends, and that runs of them resume exactly."""

import numpy as np
import pytest

pytest.importorskip("ale_py")

from mst_jax import envs
from mst_jax.envs.base import episode_seed
from mst_jax.envs.check import check
from mst_jax.envs.film.stage import open_stage
from mst_jax.envs.suites import atari, atari_screen

SEED = episode_seed(3, 0, 7)
WITHOUT_NOOPS = atari.PROTOCOLS["atari100k"]._replace(noops=1)
FIRE = 1  # of Breakout, whose ball falls down without an answer


@pytest.fixture(scope="module")
def breakout():
    return atari.load("Breakout", 4)


def without_noops(name="Breakout"):
    env = atari.load(name, 4)
    env._protocol = WITHOUT_NOOPS
    return env


def random_actions(env, count, seed=0):
    return np.random.default_rng(seed).integers(0, env.spec.action.count, count, np.int32)


def test_the_task(breakout):
    spec = breakout.spec
    assert (spec.observation.shape, spec.observation.dtype) == ((84, 84, 4), "uint8")
    assert (spec.observation.history, spec.observation.fill) == (4, "zeros")
    assert (spec.action.count, spec.episode_length, spec.action_repeat) == (4, 27_000, 4)
    assert len(envs.tasks("atari")) == 108


def test_overlaps_are_shares_of_each_pixel():
    np.testing.assert_allclose(
        atari_screen.overlaps(5, 2), [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]
    )
    for side in (160, 210):
        shares = atari_screen.overlaps(side, 84)
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(shares.sum(axis=0), 84 / side, rtol=1e-6)


def test_pictures_are_opencvs():
    """Played by hand on the emulator, and pooled and made small by OpenCV."""
    cv2 = pytest.importorskip("cv2")
    env = without_noops("Seaquest")
    env.reset(SEED)
    other = atari.load("Seaquest", 4)._ale
    other.reset_game()
    for action in random_actions(env, 60):
        shown, reward, terminated, truncated, _ = env.step(action)
        assert not truncated
        frames, paid = [], 0.0
        for _ in range(4):
            paid += other.act(other.getMinimalActionSet()[action])
            frames.append(other.getScreenGrayscale())
        assert paid == reward
        if terminated:
            break
        pooled = np.maximum(*frames[-2:])
        small = cv2.resize(pooled, (84, 84), interpolation=cv2.INTER_AREA)
        away = np.abs(small.astype(int) - shown[..., -1])
        assert away.max() <= 1  # at ties of rounding
        assert (away > 0).mean() < 1e-3


def test_pictures_rewards_and_lives_are_those_of_gymnasium():
    """Up to the first lost life: its picture differs, and theirs begins another game."""
    pytest.importorskip("cv2")
    gymnasium = pytest.importorskip("gymnasium")
    import ale_py

    gymnasium.register_envs(ale_py)
    made = gymnasium.make(
        "ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0, full_action_space=False
    )
    other = gymnasium.wrappers.AtariPreprocessing(made, noop_max=0, terminal_on_life_loss=True)
    env = without_noops()
    first, (theirs, _) = env.reset(SEED), other.reset(seed=0)
    np.testing.assert_allclose(first[..., -1].astype(int), theirs, atol=1)
    for action in random_actions(env, 200):
        shown, reward, terminated, _, _ = env.step(action)
        theirs, paid, lost, _, _ = other.step(int(action))
        assert (reward, terminated) == (paid, lost)
        if terminated:
            return
        np.testing.assert_allclose(shown[..., -1].astype(int), theirs, atol=1)
    raise AssertionError("no life was lost")


def test_a_step_that_is_cut_short_pools_what_was_there_before():
    screen = atari_screen.Screen((2, 2))
    first, second = np.full((2, 2), 5, np.uint8), np.full((2, 2), 9, np.uint8)
    screen._frames[:] = first, second
    screen.pool()
    assert (screen._frames[0] == 9).all()
    screen.pool()  # nothing was read: the last maximum, and the second frame of then
    assert (screen._frames[0] == 9).all()
    screen._frames[0] = 3  # the first alone was read
    screen.pool()
    assert (screen._frames[0] == 9).all()


def play_until(env, stop, action=FIRE, most=2_000):
    """Steps until one of which `stop` is true; all of them."""
    steps = []
    for _ in range(most):
        steps.append(env.step(np.int32(action)))
        if stop(steps[-1]):
            return steps
    raise AssertionError("it did not happen")


def test_a_lost_life_ends_what_is_learned_from_and_not_the_game(breakout):
    breakout.reset(SEED)
    lives = breakout._ale.lives()
    shown, _, terminated, truncated, over = play_until(breakout, lambda step: step[2])[-1]
    assert (terminated, truncated, over) == (True, False, False)
    assert breakout._ale.lives() == lives - 1
    assert shown[..., 0].any()  # what led to it is all there
    following, _, terminated, _, _ = breakout.step(np.int32(0))
    assert not terminated
    assert not following[..., :2].any()  # the history begins with the picture of the loss
    np.testing.assert_array_equal(following[..., 2], shown[..., 3])


def test_the_game_is_over_with_the_last_life(breakout):
    breakout.reset(SEED)
    steps = play_until(breakout, lambda step: step[4])
    assert sum(step[2] for step in steps) == 5
    assert steps[-1][2] and not steps[-1][3]
    assert breakout.reset(SEED).any()


def test_sticky_games_go_on_when_a_life_is_lost():
    """And what is sticky comes from the seed, whatever was played before."""
    env = atari.load("Breakout", 4, "sticky")
    first = env.reset(SEED)
    np.testing.assert_array_equal(first, np.repeat(first[..., -1:], 4, axis=-1))
    steps = play_until(env, lambda step: step[4])
    assert [step[2] for step in steps].count(True) == 1
    actions = random_actions(env, 30)

    def played(seed):
        env.reset(seed)
        return [env.step(action)[0].tobytes() for action in actions]

    once = played(SEED)
    assert played(episode_seed(3, 0, 8)) != once  # without sticky actions they would be equal
    assert played(SEED) == once


def test_no_ops_come_from_the_seed(breakout, monkeypatch):
    drawn = []
    advance = breakout._advance
    monkeypatch.setattr(
        breakout, "_advance", lambda action: drawn.append(action) or advance(action)
    )
    counts = []
    for episode in range(40):
        drawn.clear()
        breakout.reset(episode_seed(0, 0, episode))
        assert set(drawn) <= {atari.NOOP}
        counts.append(len(drawn))
        expected = np.random.default_rng(episode_seed(0, 0, episode)).integers(30)
        assert len(drawn) == expected
    assert min(counts) < 5 and max(counts) > 24


def test_the_time_limit_truncates(breakout, monkeypatch):
    monkeypatch.setattr(atari, "STEPS", 6)
    breakout.reset(SEED)
    ends = [breakout.step(np.int32(0))[2:] for _ in range(6)]
    assert ends == [(False, False, False)] * 5 + [(False, True, True)]


@pytest.mark.parametrize("workers", [1, 2])
def test_it_resumes_in_the_middle_of_a_life_and_after_a_loss(workers):
    task = envs.make("atari:Breakout")
    with task.vector([(0, 0), (1, 0)], workers=workers) as vector:
        vector.reset()
        snapshots, later = {}, []
        for number in range(160):
            timestep = vector.step(np.full(2, FIRE, np.int32))
            if timestep.terminated[0] and not timestep.over[0] and "lost" not in snapshots:
                snapshots["lost"] = number, vector.snapshot()
            if number == 11:
                snapshots["playing"] = number, vector.snapshot()
            later.append(timestep)
        assert set(snapshots) == {"lost", "playing"}
        for number, snapshot in snapshots.values():
            shown = vector.restore(snapshot)
            np.testing.assert_array_equal(shown, later[number].observation)
            for expected in later[number + 1 : number + 9]:
                again = vector.step(np.full(2, FIRE, np.int32))
                for one, other in zip(again, expected, strict=True):
                    np.testing.assert_array_equal(one, other)
    lost = next(t for t in later if t.terminated[0])
    assert not lost.observation[0, ..., :3].any() and lost.next_observation[0, ..., 0].any()


def test_it_keeps_the_contract():
    assert check("atari:Pong") == []


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("atari:Brakeout", {}, "did you mean Breakout"),
        ("atari:Pong", {"action_repeat": 1}, "brighter of two frames"),
        ("atari:Pong", {"picture_size": 64}, "has no pictures to choose"),
        ("dmc:cartpole-swingup", {"protocol": "sticky"}, "leave out protocol=sticky"),
        ("atari:Pong", {"protocol": "mrq"}, "none of atari100k, sticky"),
    ],
)
def test_what_there_is_not(task, options, message):
    with pytest.raises(ValueError, match=message):
        envs.make(task, **options)


def test_a_game_without_a_rom(monkeypatch):
    monkeypatch.setattr(atari.roms, "get_rom_path", lambda _: None)
    with pytest.raises(ValueError, match="atari:Pong has no ROM"):
        envs.make("atari:Pong")


def test_it_is_filmed_in_colours():
    stage = open_stage("atari:Breakout")
    stage.reset(SEED)
    view = stage.view()
    picture = view.picture()
    assert picture.shape == (420, 320, 3) and picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    shown = [stage.step(np.int32(FIRE))[0] for _ in range(60)]
    assert any(not frames[..., :3].any() for frames in shown)  # what is acted on after a loss
    assert stage.seconds == pytest.approx(4 / 60)
    view.close()
