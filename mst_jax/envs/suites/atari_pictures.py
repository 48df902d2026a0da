"""Pictures of an Atari game as agents see them: the last two frames pooled, and made smaller.

The same bytes as OpenCV's `resize(..., interpolation=INTER_AREA)`, which averages what a pixel of
the result covers. OpenCV adds in float32, along rows and then along columns, each from the first
pixel to the last; so does this, or halves would be rounded to the other side here and there.
"""

import math

import numpy as np

SIZE = 84  # pixels: height and width of all work on Atari since DQN


class Screen:
    """The last two frames that were looked at.

    An agent step of fewer than four frames (a lost life ends it) leaves old ones in place, and the
    pooled picture is one of them: a picture after a lost life may show what was before. That is how
    the programs behave whose results are compared; nothing but that picture depends on it.
    """

    def __init__(self, height: int, width: int) -> None:
        """`height` and `width` are the emulator's."""
        self.frames = np.zeros((2, height, width), np.uint8)
        self._rows, self._columns = area_weights(SIZE, height), area_weights(SIZE, width)

    def pool(self) -> None:
        """Puts the larger of both into the first, pixel by pixel."""
        np.maximum(*self.frames, out=self.frames[0])

    def picture(self) -> np.ndarray:
        """The first frame made smaller, uint8 (84, 84)."""
        return resized(self.frames[0], self._rows, self._columns)


def area_weights(size: int, covered: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `covered` pixels in a row each of `size` pixels averages.

    Returns:
        Their indices, int (n, size), in order, and weights, float32 (n, size), that add up to 1.
        Where a pixel covers fewer than n, the rest have weight 0.
    """
    scale = covered / size
    edges = np.arange(size + 1) * covered / size
    first = np.floor(edges[:-1]).astype(np.intp)
    indices = first + np.arange(math.ceil(scale) + 1)[:, None]
    overlap = np.minimum(indices + 1, edges[1:]) - np.maximum(indices, edges[:-1])
    weights = np.clip(overlap, 0, 1) / scale
    used = (weights > 0).any(axis=1)
    return np.minimum(indices, covered - 1)[used], weights[used].astype(np.float32)


def resized(
    frame: np.ndarray, rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """A frame, uint8 (H, W), averaged over areas; `rows` and `columns` are their weights."""
    narrow = _averaged(frame.astype(np.float32), *columns)
    return np.rint(_averaged(narrow.T, *rows).T).astype(np.uint8)


def _averaged(frame: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Averages along the last axis, in the order of the indices."""
    total = frame[:, indices[0]] * weights[0]
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        total += frame[:, index] * weight
    return total
