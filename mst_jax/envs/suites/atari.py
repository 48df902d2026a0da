"""Atari games on the Arcade Learning Environment, as Atari-100k has them.

An agent step is four frames of one action. Observations are the last four pictures, uint8 (84, 84,
4), newest last, with zeros before an episode's first. A lost life terminates what is learned from,
and not the game: `Timestep.over` says when that ends. Rewards are the game's own, unclipped.
"""

from __future__ import annotations

import functools
from collections import deque
from pathlib import Path

import ale_py
import numpy as np
from ale_py import roms

from mst_jax.envs.base import HostTask, Spec
from mst_jax.envs.host.task import host_task
from mst_jax.envs.protocols import PROTOCOLS, USUAL, Protocol
from mst_jax.envs.spaces import Discrete, Observation
from mst_jax.envs.suites.atari_screen import SIZE, Screen

ACTION_REPEAT = 4
FRAMES = 4
STEPS = 27_000  # of a game, no-ops apart: half an hour at 60 frames a second
SECONDS = 1 / 60  # of a frame
NOOP = 0


def tasks() -> list[str]:
    """Lists the games, by the names that Gymnasium has for them."""
    return sorted(_names())


def make(name: str, action_repeat: int | None = None, protocol: str = USUAL) -> HostTask:
    """Makes a game.

    Args:
        name: one of `tasks()`.
        action_repeat: frames per agent step, at least 2; None means 4.
        protocol: one of `PROTOCOLS`.

    Raises:
        ValueError: the repeat is 1, or there is no ROM or no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} is none of {', '.join(PROTOCOLS)}")
    factory = functools.partial(load, name, action_repeat or ACTION_REPEAT, protocol)
    return host_task(factory().spec, factory)


def load(name: str, action_repeat: int, protocol: str = USUAL) -> AtariEnv:
    """Loads one game; see `make`."""
    if action_repeat < 2:
        raise ValueError(
            f"action_repeat={action_repeat} is too few for atari:{name}, whose pictures are the "
            "brighter of two frames; give at least 2"
        )
    rom = _names()[name]
    try:
        path = roms.get_rom_path(rom)
    except (OSError, ValueError) as error:  # what it raises where the file is not as it was
        raise ValueError(f"atari:{name} has no ROM: {error}") from error
    if path is None or not Path(path).is_file():
        raise ValueError(f"atari:{name} has no ROM: install ale-py 0.12.1 anew, which brings it")
    return AtariEnv(name, Path(path), action_repeat, PROTOCOLS[protocol])


class AtariEnv:
    """One game behind the `HostEnv` protocol.

    Attributes:
        spec: sizes of the task.
    """

    def __init__(self, name: str, rom: Path, action_repeat: int, protocol: Protocol) -> None:
        """Loads a game from a ROM file; `protocol` says how it is played."""
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        # Sticky actions are drawn here: the emulator's own would depend on what it did before.
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.setInt("frame_skip", 1)
        self._ale.setInt("max_num_frames_per_episode", 0)  # the agent's steps are counted here
        self._ale.loadROM(rom)
        self._actions = self._ale.getMinimalActionSet()
        self._repeat, self._protocol = action_repeat, protocol
        shown = Observation((SIZE, SIZE, FRAMES), "uint8", history=FRAMES, fill=protocol.fill)
        actions = Discrete(len(self._actions))
        self.spec = Spec(f"atari:{name}", shown, actions, STEPS, action_repeat)
        self._screen = Screen(self._ale.getScreenDims())
        self._pictures: deque[np.ndarray] = deque(maxlen=FRAMES)

    def reset(self, seed: np.random.SeedSequence) -> np.ndarray:
        """Starts the game of `seed`: uint8 (84, 84, 4)."""
        self._random = np.random.default_rng(seed)
        self._new_game()
        for _ in range(self._random.integers(self._protocol.noops)):
            _, lost, over = self._advance(NOOP)
            if over or lost:
                self._new_game()
        self._steps = 0
        return self._begin_history(self._screen.picture())

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, bool]:
        """Takes an agent step with an action's number, of the game's own minimal set.

        Returns:
            uint8 (84, 84, 4), reward, terminated, truncated, whether the game is over.
        """
        ends = self._play(action)
        return self._show(self._screen.picture(), ends[1]), *ends

    def skip(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, bool]:
        """As `step`, but no picture is made: what it shows is out of date."""
        ends = self._play(action)
        return self._show(self._pictures[-1], ends[1]), *ends

    def frame(self) -> np.ndarray:
        """The screen in colours, uint8 (210, 160, 3)."""
        return self._ale.getScreenRGB()

    def _play(self, action: np.ndarray) -> tuple[float, bool, bool, bool]:
        """A step less its picture: reward, terminated, truncated, whether the game is over."""
        reward, lost, over = self._advance(int(action))
        self._steps += 1
        late = self._steps >= STEPS and not over
        return reward, lost or over, late, over or late

    def _advance(self, action: int) -> tuple[float, bool, bool]:
        """Frames of one action: their reward, whether a life was lost that ends it, the end."""
        reward, lost, over = 0.0, False, False
        for number in range(self._repeat):
            if not (self._protocol.sticky and self._random.random() < self._protocol.sticky):
                self._action = self._actions[action]
            reward += self._ale.act(self._action)
            lives = self._ale.lives()
            lost = self._protocol.lives and lives < self._lives
            self._lives, over = lives, self._ale.game_over()
            # What an early end leaves of the frames before is part of the picture.
            if number >= self._repeat - 2:
                self._screen.read(self._ale, number - (self._repeat - 2))
            if over or lost:
                break
        self._screen.pool()
        return reward, lost, over

    def _new_game(self) -> None:
        self._ale.reset_game()
        self._lives, self._action = self._ale.lives(), self._actions[NOOP]
        self._screen.begin(self._ale)

    def _show(self, picture: np.ndarray, terminated: bool) -> np.ndarray:
        """The history with a picture more; it begins anew with that where a life was lost."""
        self._pictures.append(picture)
        shown = np.stack(self._pictures, axis=-1)
        if terminated:
            self._begin_history(picture)
        return shown

    def _begin_history(self, picture: np.ndarray) -> np.ndarray:
        before = picture if self._protocol.fill == "repeat" else np.zeros_like(picture)
        self._pictures.extend([before] * (FRAMES - 1) + [picture])
        return np.stack(self._pictures, axis=-1)


@functools.cache
def _names() -> dict[str, str]:
    """Name of a game -> its ROM's."""
    return {rom.title().replace("_", ""): rom for rom in roms.get_all_rom_ids()}
