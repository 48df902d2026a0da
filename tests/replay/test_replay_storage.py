"""Packing and unpacking: bit-exact, small, and strict about what fits."""

import io
from dataclasses import replace

import jax
import numpy as np
import pytest
from tapes import insert, set_priorities

from mst_jax import replay
from mst_jax.envs import Continuous, Observation
from mst_jax.replay import storage

LAYOUT = replay.Layout(Observation((3,)), Continuous(2), span=4, capacity=40, seeds=2)


def filled_buffer(steps, row_dtype="float32", environments=1):
    rng = np.random.default_rng(0)
    rows = 2 * environments
    buffer = replay.create(replace(LAYOUT, row_dtype=row_dtype, environments=environments))
    for _ in range(steps):
        ends = rng.random((2, rows)) < 0.1
        observations = rng.normal(size=(2, rows, 3))
        buffer = insert(
            buffer, observations[0], rng.normal(size=(rows, 2)), rng.normal(size=rows), *ends,
            observations[1],
        )  # fmt: skip
        indices = rng.integers(0, 40, (2, 5))
        buffer = set_priorities(buffer, indices, rng.lognormal(size=(2, 5)))
    return buffer


def shapes(**changes):
    return jax.eval_shape(lambda: replay.create(replace(LAYOUT, **changes)))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(
            np.asarray(x).view(np.uint8 if x.itemsize == 1 else f"u{x.itemsize}"),
            np.asarray(y).view(np.uint8 if y.itemsize == 1 else f"u{y.itemsize}"),
        )


@pytest.mark.parametrize("row_dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("steps", [0, 1, 17, 100])
def test_round_trip_through_a_file_is_bit_exact(steps, row_dtype):
    buffer = filled_buffer(steps, row_dtype)
    file = io.BytesIO()
    np.savez(file, **replay.pack(buffer))
    file.seek(0)
    restored = replay.unpack(dict(np.load(file)), like=shapes(row_dtype=row_dtype))
    assert_equal(restored, buffer)
    assert_equal(replay.unpack(replay.pack(buffer), like=buffer), buffer)


@pytest.mark.parametrize("environments", [1, 4])
def test_slices_from_another_device_are_what_a_view_is(monkeypatch, environments):
    """Fault B1: slices of one size, also where the last one of a ring overlaps the one before."""
    for steps in (0, 3, 7, 60):
        buffer = filled_buffer(steps, environments=environments)
        arrays = replay.pack(buffer)
        with monkeypatch.context() as patched:
            patched.setattr(storage, "_view", storage._fetch)
            patched.setattr(storage, "SLICE", 7)
            sliced = replay.pack(buffer)
        assert sliced.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(sliced[name], array)
    assert storage._slice._cache_size() <= 3 * 2  # by array and number of rings, not by length


def test_a_view_of_the_buffer_is_no_copy():
    buffer = filled_buffer(60)
    assert np.shares_memory(replay.pack(buffer)["rows"], np.asarray(buffer.fields["rows"]))


def test_restored_arrays_are_committed_as_the_original_ones_were():
    """Fault B2: or every program of a resumed run is compiled again."""
    buffer = filled_buffer(5)
    for like in (buffer, shapes()):
        restored = replay.unpack(replay.pack(buffer), like=like)
        assert not any(leaf.committed for leaf in jax.tree.leaves(restored))
    there = jax.device_put(buffer, jax.devices()[0])
    restored = replay.unpack(replay.pack(buffer), like=there)
    assert all(leaf.committed for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize("steps", [0, 7, 60])
def test_round_trip_of_several_rings_is_bit_exact(steps):
    buffer, like = filled_buffer(steps, environments=4), shapes(environments=4)
    arrays = replay.pack(buffer)
    written = min(int(buffer.filled.max()) + 1, 10)
    assert arrays["rows"].shape == (8, written, 5)
    assert arrays["cursor"].shape == arrays["filled"].shape == arrays["steps"].shape == (8,)
    assert_equal(replay.unpack(arrays, like=like), buffer)
    with pytest.raises(ValueError, match=r"cursor is int32\[8\], expected int32\[2\]"):
        replay.unpack(arrays, like=shapes())


def test_packs_written_slots_only():
    buffer = filled_buffer(10)
    arrays = replay.pack(buffer)
    written = int(buffer.filled.max()) + 1
    assert 10 < written < 20
    assert arrays["rows"].shape == (2, written, 5)
    assert arrays["reward"].shape == arrays["terminated"].shape == (2, written)
    assert arrays["priority"].shape == (2, written)


def test_packed_arrays_survive_donated_inserts():
    buffer = filled_buffer(10)
    arrays = replay.pack(buffer)
    before = {name: array.copy() for name, array in arrays.items()}
    no = np.zeros(2, bool)
    x = np.ones((2, 3)), np.ones((2, 2)), np.ones(2), no, ~no, np.ones((2, 3))
    for _ in range(50):
        buffer = insert(buffer, *x)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_goes_on_as_if_never_stopped():
    insert = jax.jit(replay.insert)
    buffer = filled_buffer(60)
    restored = replay.unpack(replay.pack(buffer), like=shapes())
    no = np.zeros(2, bool)
    x = np.ones((2, 3)), np.ones((2, 2)), np.ones(2), no, ~no, np.ones((2, 3))
    assert_equal(insert(restored, *x), insert(buffer, *x))


def test_restores_onto_the_sharding_of_like():
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes()
    )
    restored = replay.unpack(replay.pack(filled_buffer(5)), like=like)
    assert all(leaf.sharding == device for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity": 41}, "packed buffer has capacity 40, this one 41"),
        ({"seeds": 3}, "packed buffer has seeds 2, this one 3"),
        (
            {"observation": Observation((2,)), "action": Continuous(3)},
            "has observation_size 3, this one 2",
        ),
        ({"span": 3}, "packed buffer has span 4, this one 3"),
        ({"row_dtype": "bfloat16"}, r"rows is float32\[2, .*\], expected uint16\[2, .*\]"),
        ({"row_dtype": "float16"}, "expected float16"),
    ],
)
def test_another_layout_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replay.unpack(replay.pack(filled_buffer(3)), like=shapes(**change))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: a.pop("steps"), r"arrays \['steps'\] are missing or unknown"),
        (lambda a: a.update(more=a["steps"]), r"arrays \['more'\] are missing or unknown"),
        (lambda a: a.update(rows=a["rows"][:, :-1]), r"rows is float32\[2, .*\], expected"),
        (lambda a: a.update(cursor=a["cursor"].astype(np.int64)), r"cursor is int64\[2\]"),
        (lambda a: a.update(reward=a["reward"].astype(np.float64)), "reward is float64"),
        (lambda a: a.update(priority=a["priority"][:1]), r"priority is float32\[1, "),
        (lambda a: a.update(filled=a["filled"] + 9), r"rows is float32\[2, .*\], expected"),
    ],
)
def test_damaged_arrays_are_refused(damage, message):
    arrays = replay.pack(filled_buffer(5))
    damage(arrays)
    with pytest.raises(ValueError, match=message):
        replay.unpack(arrays, like=shapes())
