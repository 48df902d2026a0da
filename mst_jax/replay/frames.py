"""Frames in checkpoints: each is written once, as part of a segment, and not with every checkpoint.

A slot behind the cursor does not change until the ring comes round. So what a checkpoint adds are
the slots that the cursor passed since the one before: a segment holds those before each ring's
cursor, as many of every ring, and the slot at the cursor, whose content may still change and then
is in the next segment too. Put down oldest first, the segments are the buffer's frames, bit by bit.
Everything here is NumPy's; where slots are counted from is a ring's very first.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

FRAMES, RECENT, WRITTEN = "observation", "recent", "written"  # names of packed arrays


class Segment(NamedTuple):
    """Frames of R rings.

    Attributes:
        frames: uint8 [R, K+1, P], of the K slots before each cursor and of the one at it.
        written: int32 [R], slots that each cursor had passed.
    """

    frames: np.ndarray
    written: np.ndarray


def slots_since(written: np.ndarray, before: np.ndarray | None, ring: int) -> int:
    """Slots before the cursors that a segment must hold.

    Args:
        written: [R], slots that each cursor has passed.
        before: [R], those it had passed when the last segment was made; None if there is none.
        ring: slots of each ring.
    """
    new = written if before is None else written - before
    return min(int(new.max()), ring - 1)


def is_needed(segment: np.ndarray, written: np.ndarray, ring: int) -> bool:
    """Whether rings still hold frames of a segment; the numbers are as for `slots_since`."""
    return bool((segment - 1 > written - ring).any())


def ring_of(packed: Mapping[str, np.ndarray]) -> int:
    """Slots of each ring of a packed buffer."""
    return int(packed["layout"][0]) * len(packed["max_priority"]) // len(packed["cursor"])


def assemble(
    packed: Mapping[str, np.ndarray], segments: Iterable[Segment]
) -> dict[str, np.ndarray]:
    """A packed buffer with its frames.

    Args:
        packed: what `pack` makes, without `observation`.
        segments: that hold all of it, oldest first; read one at a time.

    Raises:
        ValueError: if a segment is of other rings.
    """
    ring, written = ring_of(packed), packed[WRITTEN]
    rings, slots = packed["reward"].shape
    frames: np.ndarray | None = None
    for segment in segments:
        if frames is None:
            frames = np.zeros((rings, slots, *segment.frames.shape[2:]), segment.frames.dtype)
        back = np.arange(1 - segment.frames.shape[1], 1)
        if segment.written.shape != written.shape:
            raise ValueError(f"a segment of {len(segment.written)} rings in a buffer of {rings}")
        for own, held, end, now in zip(
            frames, segment.frames, segment.written, written, strict=True
        ):
            position = end + back
            there = (position >= 0) & (position >= now - ring)
            own[position[there] % ring] = held[there]
    if frames is None:
        raise ValueError("a buffer of frames without a segment")
    return {**packed, FRAMES: frames}
