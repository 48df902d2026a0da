"""What an agent sees of an Atari screen: the brighter of two frames, grey, 84x84."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import ale_py

SIZE = 84


class Screen:
    """The last two frames of an agent step.

    They are pooled in place, so that a frame that was not read leaves what the step before left.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        """`shape` is the emulator's, (210, 160) for most games."""
        self._frames = np.zeros((2, *shape), np.uint8)
        self._rows, self._columns = (overlaps(side, SIZE) for side in shape)

    def begin(self, ale: ale_py.ALEInterface) -> None:
        """Reads a game's first frame, and forgets those before."""
        self.read(ale, 0)
        self._frames[1] = 0

    def read(self, ale: ale_py.ALEInterface, number: int) -> None:
        """Reads the present frame as the first or the second, in the emulator's own grey."""
        ale.getScreenGrayscale(self._frames[number])

    def pool(self) -> None:
        """Takes the brighter of both frames, pixel by pixel."""
        np.maximum(*self._frames, out=self._frames[0])

    def picture(self) -> np.ndarray:
        """What was pooled, uint8 (84, 84): means over areas."""
        small = self._rows @ self._frames[0].astype(np.float32) @ self._columns.T
        return np.rint(small).astype(np.uint8)


def overlaps(side: int, size: int) -> np.ndarray:
    """Shares of `side` pixels in each of `size` equal parts, float32 [size, side]; rows sum to 1.

    Two of them, one for each axis, are OpenCV's area interpolation, less ties of rounding.
    """
    part = side / size
    ends = np.arange(size + 1) * part
    pixels = np.arange(side)
    covered = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return (np.clip(covered, 0, None) / part).astype(np.float32)
