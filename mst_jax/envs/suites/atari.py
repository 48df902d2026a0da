"""Atari 2600 games in the Arcade Learning Environment, as Atari-100k has them or otherwise.

Observations are the last four pictures, uint8 (84, 84, 4), oldest first, zeros before a life's
first. A lost life terminates what is learned from, and the game goes on: `Timestep.over` tells.
Other protocols (`mst_jax.envs.protocols`) differ in that.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms

from mst_jax.envs.base import HostTask, Spec
from mst_jax.envs.host.task import host_task
from mst_jax.envs.protocols import PROTOCOLS, USUAL, Protocol
from mst_jax.envs.spaces import Discrete, Observation
from mst_jax.envs.suites.atari_pictures import SIZE, Screen

PICTURES = 4  # that an observation holds
TWO_PLAYERS = ("combat", "joust", "maze_craze", "warlords")  # without a game for one
FRAMES_A_SECOND = 60


def tasks() -> list[str]:
    """Lists the games as Gymnasium spells them, such as `MsPacman`."""
    return sorted(_roms())


def make(name: str, action_repeat: int | None = None, protocol: str = USUAL) -> HostTask:
    """Makes a game.

    Args:
        name: one of `tasks()`.
        action_repeat: None or 4; that is every protocol's.
        protocol: one of `PROTOCOLS`.

    Raises:
        ValueError: if the action repeat is another, there is no such protocol, or the game's ROM is
            not there or not the one that the emulator knows.
    """
    factory = functools.partial(load, name, action_repeat, protocol)
    return host_task(factory().spec, factory)


def load(name: str, action_repeat: int | None = None, protocol: str = USUAL) -> AtariEnv:
    """Loads one game; see `make`."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} is none of {', '.join(PROTOCOLS)}")
    own = PROTOCOLS[protocol]
    if action_repeat not in (None, own.frames):
        raise ValueError(
            f"an agent step of atari is {own.frames} frames, as {protocol} has it; "
            f"action_repeat={action_repeat} would be another task: leave it out"
        )
    return AtariEnv(name, own)


class AtariEnv:
    """One game behind the `HostEnv` protocol.

    Attributes:
        spec: sizes of the task.
    """

    def __init__(self, name: str, protocol: Protocol) -> None:
        """Loads the game (0.1 s).

        Args:
            name: one of `tasks()`.
            protocol: how it is played.

        Raises:
            ValueError: see `make`.
        """
        self._rom = _rom(name)
        ALEInterface.setLoggerMode(LoggerMode.Error)  # before, or a banner is printed
        self._ale = ALEInterface()
        # Sticky actions are drawn here: the emulator's depend on what it played before.
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.setInt("max_num_frames_per_episode", 0)  # games are cut here, and nowhere else
        self._ale.loadROM(self._rom)
        self._actions = self._ale.getMinimalActionSet()
        self._protocol = protocol
        self._screen = Screen(*self._ale.getScreenDims())
        shown = Observation((SIZE, SIZE, PICTURES), "uint8", history=PICTURES, fill=protocol.fill)
        self.spec = Spec(
            f"atari:{name}", shown, Discrete(len(self._actions)), protocol.steps, protocol.frames
        )
        self._stack = np.zeros(shown.shape, np.uint8)
        self._steps = self._lives = 0

    def reset(self, seed: np.random.SeedSequence) -> np.ndarray:
        """Starts the game of `seed`: doing nothing comes first, then the first observation."""
        self._random = np.random.default_rng(seed)
        self._begin()
        no_ops = int(self._random.integers(self._protocol.no_ops))
        self._steps = -no_ops  # they are none of the game's, nor do those of the game before count
        for _ in range(no_ops):
            if self._advance(Action.NOOP)[3]:
                self._begin()
        self._stack = self.spec.observation.fresh(self._show())
        return self._stack

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, bool]:
        """Takes an agent step, which a lost life or the game's end cuts short.

        Args:
            action: int32 scalar, an index into the game's minimal action set.

        Returns:
            observation uint8 (84, 84, 4), reward (of all frames, not clipped), terminated,
            truncated, over.
        """
        rest = self._advance(self._actions[action])
        observation = self._show()
        if rest[1] and not rest[3]:
            self._stack = self.spec.observation.fresh(observation)
        return observation, *rest

    def skip(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, bool]:
        """As `step`, but no picture is made: what it shows is out of date."""
        return self._stack, *self._advance(self._actions[action])

    def screen(self) -> np.ndarray:
        """The emulator's own picture in colours, uint8 (H, W, 3)."""
        return self._ale.getScreenRGB()

    def _begin(self) -> None:
        """A new game, in a console that nobody has played on.

        Loading takes 65 ms. The emulator's reset, 4 ms, leaves memory as it was, and so do its
        saved states in some games: 19 and 2 of 104 went on otherwise after them.
        """
        self._ale.loadROM(self._rom)
        self._ale.reset_game()
        self._lives, self._action = self._ale.lives(), Action.NOOP
        self._screen.frames[1] = 0
        self._ale.getScreenGrayscale(self._screen.frames[0])
        self._screen.pool()

    def _advance(self, action: Action) -> tuple[float, bool, bool, bool]:
        """An agent step less its picture: reward, terminated, truncated, over."""
        reward, ended, died = 0, False, False
        first_seen = self._protocol.frames - 2
        for number in range(self._protocol.frames):
            if not (self._protocol.sticky and self._random.random() < self._protocol.sticky):
                self._action = action
            reward += self._ale.act(self._action)
            ended, died = self._ale.game_over(), self._lose_life()
            if number >= first_seen:
                self._ale.getScreenGrayscale(self._screen.frames[number - first_seen])
            if ended or died:
                break
        self._screen.pool()
        self._steps += 1
        terminated = ended or died
        at_limit = self._steps >= self._protocol.steps
        return float(reward), terminated, at_limit and not terminated, ended or at_limit

    def _lose_life(self) -> bool:
        """Whether a life was lost that ends what is learned from."""
        before, self._lives = self._lives, self._ale.lives()
        return self._protocol.lives_terminate and self._lives < before

    def _show(self) -> np.ndarray:
        """The newest picture behind those of before, as a fresh array."""
        newest = self._screen.picture()[..., None]
        self._stack = np.concatenate([self._stack[..., 1:], newest], axis=-1)
        return self._stack


@functools.cache
def _roms() -> dict[str, str]:
    """ROM identifiers by Gymnasium's names of the games."""
    alone = (rom for rom in roms.get_all_rom_ids() if rom not in TWO_PLAYERS)
    return {rom.title().replace("_", ""): rom for rom in alone}


def _rom(name: str) -> Path:
    """Where a game's ROM is; ValueError if it is missing or another one."""
    try:
        path = roms.get_rom_path(_roms()[name])
    except OSError as error:
        why = str(error).replace("\n", " ")
        raise ValueError(
            f"atari:{name} has no ROM: {why}; ale-py brings all of them: pip install "
            "--force-reinstall ale-py, and unset ALE_ROMS_DIR"
        ) from error
    return Path(str(path))
