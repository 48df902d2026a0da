"""Frames in segments: put together they are the buffer, wherever they were cut."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mst_jax import replay
from mst_jax.envs import Discrete, Observation
from mst_jax.replay import frames, storage

LAYOUT = replay.Layout(
    Observation((1, 2, 2), "uint8", history=2), Discrete(3), 2, 18, seeds=2, environments=2
)
insert = jax.jit(replay.insert)


class Disk:
    """Checkpoints as they are saved: segments of frames while one needs them, all else whole."""

    def __init__(self):
        self.segments = []

    def save(self, buffer):
        written = np.asarray(buffer.written).ravel()
        before = self.segments[-1].written if self.segments else None
        packed = replay.pack(buffer, frames.slots_since(written, before, LAYOUT.ring))
        self.segments = [s for s in self.segments if frames.is_needed(s.written, written, 9)]
        self.segments.append(frames.Segment(packed.pop("recent"), written))
        return frames.assemble(packed, self.segments)


def play(flags, saved, rng):
    """Saves after the steps told; yields what was put together, and the buffer."""
    disk, buffer = Disk(), replay.create(LAYOUT)
    rows = LAYOUT.seeds * LAYOUT.environments
    space = LAYOUT.observation

    def picture():
        return rng.integers(1, 256, (rows, 1, 2, 1), np.uint8)

    shown = space.fresh(np.repeat(picture(), 2, axis=-1))
    for step, (terminated, truncated) in enumerate(flags):
        following = np.concatenate([space.newest(shown), picture()], axis=-1)
        action, reward = rng.integers(0, 3, rows), rng.normal(size=rows)
        buffer = insert(buffer, shown, action, reward, terminated, truncated, following)
        begun = space.fresh(np.repeat(picture(), 2, axis=-1))
        ended = (terminated | truncated)[:, None, None, None]
        shown = np.where(ended, begun, following)
        if saved[step]:
            yield disk, disk.save(buffer), buffer


@settings(max_examples=30, deadline=None)
@given(
    saved=st.lists(st.booleans(), min_size=1, max_size=80),
    hazard=st.sampled_from([0.0, 0.1, 0.6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_segments_are_the_buffer(saved, hazard, seed):
    rng = np.random.default_rng(seed)
    flags = rng.random((len(saved), 2, 4)) < hazard
    for _, packed, buffer in play(flags, saved, rng):
        whole = replay.pack(buffer)
        assert packed.keys() == whole.keys()
        for name, array in whole.items():
            np.testing.assert_array_equal(packed[name], array)
        restored = replay.unpack(packed, like=buffer)
        jax.tree.map(np.testing.assert_array_equal, restored, buffer)


def test_a_step_a_segment_writes_two_slots_of_each_ring():
    """The new one and the one at the cursor; segments that the ring has left behind are dropped."""
    flags = np.zeros((40, 2, 4), bool)
    *_, (disk, _, _) = play(flags, [True] * 40, np.random.default_rng(0))
    assert [segment.frames.shape[1] for segment in disk.segments] == [2] * 8


def test_pieces_from_another_device_are_what_a_view_is(monkeypatch):
    flags = np.random.default_rng(0).random((30, 2, 4)) < 0.1
    *_, (_, _, buffer) = play(flags, [True] * 30, np.random.default_rng(1))
    for count in (0, 1, 2, 3, 8):
        expected = replay.pack(buffer, count)["recent"]
        with monkeypatch.context() as patched:
            patched.setattr(storage, "_take", storage._take_in_pieces)
            patched.setattr(storage, "SLICE", 3)
            np.testing.assert_array_equal(replay.pack(buffer, count)["recent"], expected)


def test_segments_of_another_buffer_are_refused():
    packed = replay.pack(replay.create(LAYOUT), 0)
    segment = frames.Segment(packed.pop("recent")[:2], packed["written"][:2])
    with pytest.raises(ValueError, match="a segment of 2 rings in a buffer of 4"):
        frames.assemble(packed, [segment])
    with pytest.raises(ValueError, match="a buffer of frames without a segment"):
        frames.assemble(packed, [])
