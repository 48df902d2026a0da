"""Atari games: the protocol frame by frame, lost lives, resume, films.

Skipped where ale-py is missing.
"""

import contextlib
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import video
from mst_jax import envs
from mst_jax.envs.base import episode_seed
from mst_jax.envs.film.stage import open_stage
from mst_jax.envs.suites.atari_pictures import Screen
from mst_jax.program.evaluation import make_evaluator

ale_py = pytest.importorskip("ale_py")
atari = pytest.importorskip("mst_jax.envs.suites.atari")

BREAKOUT = "atari:Breakout"
AT_ONCE = atari.PROTOCOLS["atari100k"]._replace(no_ops=1)
SEED = episode_seed(3, 1, 2)
FIRE = 1  # in Breakout it serves; a paddle that stays loses its five lives in about 160 steps


def actions_for(env, steps, seed=0):
    return np.random.default_rng(seed).integers(0, env.spec.action.count, steps).astype(np.int32)


def serve(steps):
    """Actions that lose lives fast."""
    return np.full(steps, FIRE, np.int32)


def emulator(rom):
    """The emulator as it comes, for oracles."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(ale_py.roms.get_rom_path(rom))
    ale.reset_game()
    return ale


@pytest.mark.parametrize("rom", ["breakout", "seaquest"])
def test_a_step_is_four_frames_on_the_emulator(rom):
    """Rewards, ends and, with OpenCV, pictures; a lost life cuts a step short."""
    cv2 = pytest.importorskip("cv2")
    env, ale = atari.AtariEnv(rom.title(), AT_ONCE), emulator(rom)
    observation = env.reset(SEED)
    old = ale.getScreenGrayscale(), np.zeros((210, 160), np.uint8)
    small = lambda frame: cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA)  # noqa: E731
    np.testing.assert_array_equal(observation[..., -1], small(old[0]))
    own, lives, lost = ale.getMinimalActionSet(), ale.lives(), 0
    actions = serve(200) if rom == "breakout" else actions_for(env, 200)
    for action in actions:
        reward, seen, over = 0, list(old), False
        for number in range(4):
            reward += ale.act(own[action])
            died, lives = ale.lives() < lives, ale.lives()
            over = ale.game_over()
            if number > 1:
                seen[number - 2] = ale.getScreenGrayscale()
            if died or over:
                break
        old = np.maximum(*seen), seen[1]
        shown, *rest = env.step(action)
        assert rest == [reward, died or over, False, over]
        np.testing.assert_array_equal(shown[..., -1], small(old[0]))
        lost += died
        if over:
            break
    assert lost > 1


def test_gymnasiums_pictures_until_a_life_is_lost():
    """All but those of a lost life, after which its wrapper begins another game."""
    pytest.importorskip("cv2")
    gymnasium = pytest.importorskip("gymnasium")
    gymnasium.register_envs(ale_py)
    theirs = gymnasium.wrappers.AtariPreprocessing(
        gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0),
        noop_max=0,
        terminal_on_life_loss=True,
    )
    ours = atari.AtariEnv("Breakout", AT_ONCE)
    shown, _ = theirs.reset()
    np.testing.assert_array_equal(ours.reset(SEED)[..., -1], shown)
    compared = 0
    for action in actions_for(ours, 400):
        shown, reward, terminated, truncated, _ = theirs.step(action)
        observation, *rest, _ = ours.step(action)
        assert rest == [reward, terminated, truncated]
        if terminated:
            break
        np.testing.assert_array_equal(observation[..., -1], shown)
        compared += 1
    assert terminated
    assert compared > 10


def test_a_lost_life_empties_the_history_and_the_game_goes_on():
    env = atari.load("Breakout")
    env.reset(SEED)
    losses, previous = 0, None
    for action in serve(400):
        observation, _, terminated, truncated, over = env.step(action)
        if previous is not None:
            assert not observation[..., :2].any()
            np.testing.assert_array_equal(observation[..., 2:-1], previous[..., -1:])
        assert not truncated
        if over:
            break
        losses += terminated
        previous = observation if terminated else None
    assert over
    assert terminated
    assert losses == 4


def test_the_vector_tells_lives_from_games():
    """Histories, episode numbers and the log: what `over` decides and what `terminated` does."""
    with envs.make(BREAKOUT).vector([(3, 1)], workers=1) as env:
        env.reset(2)
        lengths, ends = [], 0
        for _ in range(400):
            step = env.step(serve(1))
            ends += step.terminated[0]
            before = env.snapshot()
            if step.over[0]:
                break
            lengths.append(int(before["length"][0]))
            if step.terminated[0]:
                assert step.next_observation[0, ..., :-1].any()
                assert not step.observation[0, ..., :-1].any()
                newest = step.next_observation[..., -1]
                np.testing.assert_array_equal(step.observation[..., -1], newest)
        assert ends == 5
        assert lengths == list(range(1, len(lengths) + 1))
        assert (before["episode"][0], before["length"][0]) == (3, 0)
        assert not step.observation[0, ..., :-1].any()


def test_resume_is_exact_in_a_life_and_right_after_a_loss():
    task, seeds = envs.make(BREAKOUT), [(3, 1), (4, 0)]
    actions = np.concatenate([serve(160).reshape(80, 2), actions_for(task, 80).reshape(40, 2)])
    with task.vector(seeds, workers=2) as env:
        env.reset(2)
        steps, snapshots = [], []
        for action in actions:
            steps.append(env.step(action))
            snapshots.append(env.snapshot())
    lost = next(n for n, step in enumerate(steps) if step.terminated[0] and not step.over[0])
    with task.vector(seeds, workers=1) as env:
        for start in (2, lost - 1, lost, lost + 1, lost + 3):
            shown = env.restore(snapshots[start])
            np.testing.assert_array_equal(shown, steps[start].observation)
            for number in range(start + 1, start + 8):
                for one, other in zip(env.step(actions[number]), steps[number], strict=True):
                    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("game", ["Assault", "DemonAttack", "Frostbite", "Qbert"])
def test_a_game_does_not_know_what_was_played_before(game):
    """The emulator's own reset keeps memory, and each of these went on otherwise after it or after
    a state that it had saved."""
    env, fresh = atari.load(game), atari.load(game)
    actions = actions_for(env, 150, seed=1)
    env.reset(episode_seed(0, 0, 6))
    for action in actions[::-1]:
        if env.step(action)[-1]:
            break
    seed = episode_seed(0, 0, 5)
    np.testing.assert_array_equal(env.reset(seed), fresh.reset(seed))
    for action in actions:
        observation, *rest = fresh.step(action)
        shown, *others = env.step(action)
        np.testing.assert_array_equal(shown, observation)
        assert others == rest


def test_the_return_of_a_game_goes_on_over_lost_lives():
    """An evaluation's, against a game of the same policy played by hand."""
    task = envs.make(BREAKOUT)
    choose = lambda observation: 1 + observation.astype(np.int32).sum() % 2  # noqa: E731
    agent = SimpleNamespace(
        evaluate=lambda gain, observation, key: choose(observation).astype(np.int32),
        value=lambda gain, observation, action: jnp.zeros(()),
        act=None,
        discount=0.99,
    )
    with contextlib.closing(make_evaluator(agent, task, [5], 1)) as evaluate:
        returns = np.asarray(evaluate(jnp.zeros(1), 7).returns)
    env, paid = atari.load("Breakout"), [0.0]
    observation, over = env.reset(video.first_start(task, [5], 0, 1, 7)), False
    while not over:
        shown, reward, terminated, _, over = env.step(choose(observation))
        observation = env.spec.observation.fresh(shown) if terminated else shown
        paid[-1] += reward
        paid += [0.0] * terminated
    assert sum(paid) == returns[0, 0]
    assert any(paid[:-2])  # in a life before the last


def test_nothing_is_done_first_for_as_many_steps_as_the_seed_says(monkeypatch):
    env, ale = atari.load("Breakout"), emulator("breakout")
    pooled = []
    monkeypatch.setattr(
        Screen, "pool", lambda screen, own=Screen.pool: (pooled.append(1), own(screen))
    )
    counts = []
    for number in range(25):
        seed = episode_seed(0, 0, number)
        pooled.clear()
        first = env.reset(seed)
        counts.append(len(pooled) - 1)  # one for the game's first frame
        assert counts[-1] == np.random.default_rng(seed).integers(30)
        assert not first[..., :-1].any()
    assert min(counts) < 5
    assert max(counts) > 24
    ale.reset_game()
    for _ in range(4 * counts[-1]):
        ale.act(0)
    np.testing.assert_array_equal(env.screen(), ale.getScreenRGB())


def test_a_game_is_cut_after_its_steps_and_not_terminated():
    env = atari.AtariEnv("Pong", AT_ONCE._replace(steps=7))
    assert env.spec.episode_length == 7
    for _ in range(2):
        env.reset(SEED)
        ends = [env.step(np.int32(0))[2:] for _ in range(7)]
        assert ends == [(False, False, False)] * 6 + [(False, True, True)]


def test_a_game_after_one_that_was_cut_begins_as_any():
    """The steps of the game before are none of its own, nor are those in which nothing is done."""
    protocol = atari.PROTOCOLS["atari100k"]._replace(steps=7)
    seed = next(
        s for n in range(99) if np.random.default_rng(s := episode_seed(0, 0, n)).integers(30) > 7
    )
    env, fresh = atari.AtariEnv("Breakout", protocol), atari.AtariEnv("Breakout", protocol)
    env.reset(SEED)
    assert [env.step(np.int32(FIRE))[-1] for _ in range(7)] == [False] * 6 + [True]
    np.testing.assert_array_equal(env.reset(seed), fresh.reset(seed))
    np.testing.assert_array_equal(env.screen(), fresh.screen())
    for action in serve(7):
        shown, *rest = env.step(action)
        observation, *others = fresh.step(action)
        np.testing.assert_array_equal(shown, observation)
        assert rest == others
    assert rest[-1]


def test_a_life_that_is_lost_in_the_last_step_terminates():
    env = atari.AtariEnv("Breakout", AT_ONCE)
    env.reset(SEED)
    lost = next(n for n, action in enumerate(serve(400)) if env.step(action)[2])
    cut = atari.AtariEnv("Breakout", AT_ONCE._replace(steps=lost + 1))
    cut.reset(SEED)
    *_, last = (cut.step(action) for action in serve(lost + 1))
    assert last[2:] == (True, False, True)


def test_lives_that_do_not_terminate():
    env = atari.AtariEnv("Breakout", AT_ONCE._replace(lives_terminate=False))
    env.reset(SEED)
    ends = [env.step(action)[2:] for action in serve(200)]
    assert ends.index((True, False, True)) == [any(end) for end in ends].index(True) > 100


def test_the_emulators_own_limit_is_off():
    assert atari.load("Pong")._ale.getInt("max_num_frames_per_episode") == 0


def test_the_spec_of_a_game():
    spec = envs.make(BREAKOUT).spec
    shown = envs.Observation((84, 84, 4), "uint8", history=4, fill="zeros")
    assert spec == envs.base.Spec(BREAKOUT, shown, envs.Discrete(4), 27_000, 4)
    assert envs.make("atari:Freeway").spec.action.count == 3
    names = envs.tasks("atari")
    assert len(names) == len(set(names)) == 104
    assert {"Breakout", "MsPacman", "UpNDown", "Qbert"} <= set(names)


@pytest.mark.parametrize("game", ["Backgammon", "Adventure"])
def test_games_keep_the_contract(game):
    """Adventure's screen is higher, and Backgammon's first action is not to do nothing."""
    assert envs.check(f"atari:{game}", steps=60) == []


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("atari:breakout", {}, "did you mean Breakout"),
        (BREAKOUT, {"action_repeat": 2}, "an agent step of atari is 4 frames"),
        (BREAKOUT, {"picture_size": 64}, "leave out picture_size and quality"),
        (BREAKOUT, {"quality": "fast"}, "leave out picture_size and quality"),
        (BREAKOUT, {"with_time": "exact"}, "leave it off"),
        ("atari:Combat", {}, "unknown task 'Combat'"),
        (BREAKOUT, {"protocol": "mrq"}, "none of atari100k, sticky"),
        ("dmc:cartpole-swingup", {"protocol": "sticky"}, "leave out protocol=sticky"),
    ],
)
def test_what_a_game_has_not_is_refused(task, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        envs.make(task, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_rom_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=r"atari:Pong has no ROM: .*pip install"):
        envs.make("atari:Pong")
    (tmp_path / "pong.bin").write_bytes(b"no game")
    with pytest.raises(ValueError, match=r"^atari:Pong has no ROM: The hash of pong.bin[^\n]*$"):
        envs.make("atari:Pong")


def test_a_film_is_the_screen_in_colours():
    stage, env = open_stage(BREAKOUT), atari.load("Breakout")
    np.testing.assert_array_equal(stage.reset(SEED), env.reset(SEED))
    assert stage.seconds == pytest.approx(4 / 60)
    for action in serve(400):
        shown, _, over = stage.step(action)
        observation, _, terminated, _, _ = env.step(action)
        if not terminated:
            np.testing.assert_array_equal(shown, observation)
        elif not over:
            np.testing.assert_array_equal(shown, env.spec.observation.fresh(observation))
        if over:
            break
    assert over
    picture = stage.picture()
    assert (picture.shape, picture.dtype) == ((420, 320, 3), np.uint8)
    np.testing.assert_array_equal(picture[1::2, ::2], env.screen())
    stage.close()


def test_sticky_games_come_from_the_seed_and_go_on_when_a_life_is_lost():
    env = atari.load("Breakout", protocol="sticky")
    first = env.reset(SEED)
    np.testing.assert_array_equal(first, np.repeat(first[..., -1:], 4, axis=-1))
    lives, ended = env._ale.lives(), []
    while not (ended and ended[-1]):
        _, _, terminated, _, over = env.step(np.int32(1))
        assert terminated == over
        ended.append(over)
    assert lives == 5 and env._ale.lives() == 0
    actions = np.random.default_rng(0).integers(0, env.spec.action.count, 30, np.int32)

    def played(seed):
        env.reset(seed)
        return [env.step(action)[0].tobytes() for action in actions]

    once = played(SEED)
    assert played(episode_seed(3, 0, 8)) != once  # without sticky actions they would be equal
    assert played(SEED) == once
