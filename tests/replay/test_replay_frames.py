"""Observations with a history, pictures and discrete actions: stored in parts, read whole."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import SEEDS, insert, play, set_priorities

from mst_jax import replay
from mst_jax.envs import Continuous, Discrete, Observation

ATARI = Observation((2, 3, 4), "uint8", history=4, fill="zeros"), Discrete(5)
PIXELS = Observation((2, 3, 9), "uint8", history=3), Continuous(2)
FLOATS = Observation((6,), history=2, fill="zeros"), Continuous(2)
PICTURE = Observation((2, 3, 1), "uint8"), Discrete(3)
CHOICES = Observation((3,)), Discrete(70_000)  # more than half precision can tell apart
ALL = {"atari": ATARI, "pixels": PIXELS, "floats": FLOATS, "picture": PICTURE, "choices": CHOICES}

END = st.sampled_from([(False, False)] * 5 + [(True, False), (False, True), (True, True)])


@settings(max_examples=15, deadline=None)
@given(
    ends=st.lists(st.tuples(*[END] * SEEDS * 2), min_size=1, max_size=60),
    seed=st.integers(0, 2**32 - 1),
    spaces=st.sampled_from([ATARI, PIXELS]),
)
def test_what_is_read_is_what_was_shown(ends, seed, spaces):
    flags = [tuple(np.array(step).T) for step in ends]
    play(13, 3, flags, np.random.default_rng(seed), 7, environments=2, spaces=spaces)


@pytest.mark.parametrize(
    ("kind", "span", "ring"),
    [
        *(("atari", 1, 6), ("atari", 4, 9), ("pixels", 3, 7), ("pixels", 1, 11)),
        *(("floats", 2, 5), ("picture", 1, 3), ("picture", 3, 8), ("choices", 2, 9)),
    ],
)
@pytest.mark.parametrize("hazard", [0.0, 0.1])
def test_is_what_was_shown_over_many_wraps(kind, span, ring, hazard):
    """The first rings of each kind are the smallest that their layouts allow."""
    rng = np.random.default_rng(ring)
    flags = rng.random((5 * ring + 30, 2, SEEDS)) < hazard
    _, tapes = play(ring, span, flags, rng, check_every=5, spaces=ALL[kind])
    assert all(len(tape.slots) > 4 * ring for (tape,) in tapes)


@pytest.mark.parametrize("kind", ["floats", "choices"])
def test_half_precision_rounds_floats_only(kind):
    flags = np.random.default_rng(0).random((40, 2, SEEDS)) < 0.1
    play(12, 2, flags, np.random.default_rng(1), 5, spaces=ALL[kind], row="float16")


@pytest.mark.parametrize("kind", ALL)
def test_round_trip_of_named_fields_is_bit_exact(kind):
    """After a wrap, with half-precision floats, through NumPy's own files."""
    flags = np.random.default_rng(0).random((40, 2, SEEDS * 2)) < 0.1
    buffer, _ = play(
        *(12, 2, flags, np.random.default_rng(1), 99),
        environments=2,
        spaces=ALL[kind],
        row="bfloat16" if kind == "pixels" else "float16",
    )
    file = io.BytesIO()
    np.savez(file, **replay.pack(buffer))
    file.seek(0)
    restored = replay.unpack(dict(np.load(file)), like=jax.eval_shape(lambda: buffer))
    assert jax.tree.structure(restored) == jax.tree.structure(buffer)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(buffer), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        (PIXELS, "packed buffer has observation_size 24, this one 54"),
        ((ATARI[0]._replace(fill="repeat"), ATARI[1]), "has fill with zeros 1, this one 0"),
        ((ATARI[0]._replace(shape=(3, 2, 4)), ATARI[1]), "has observation axis 0 2, this one 3"),
        ((ATARI[0]._replace(shape=(6, 4)), ATARI[1]), "is of observations with other axes"),
        ((Observation((24,)), Continuous(2)), "arrays .*rows.* are missing or unknown"),
    ],
)
def test_other_spaces_are_refused(spaces, message):
    packed = replay.pack(replay.create(replay.Layout(*ATARI, 2, 12)))
    with pytest.raises(ValueError, match=message):
        replay.check(packed, jax.eval_shape(lambda: replay.create(replay.Layout(*spaces, 2, 12))))


def test_a_stack_by_hand():
    """Two lives of one game: the second begins with the last picture of the first."""
    space = Observation((1, 1, 3), "uint8", history=3, fill="zeros")
    layout = replay.Layout(space, Discrete(2), span=1, capacity=8)
    buffer = replay.create(layout)
    no, yes = np.array([False]), np.array([True])
    shown = [[0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 3], [0, 3, 4]]
    # After 2 a life is lost: the step led to 3, and the next observation is 3 alone.
    steps = [(0, 1, no), (1, 2, yes), (3, 4, no)]
    for before, after, lost in steps:
        arrays = (np.array(shown[i], np.uint8).reshape(1, 1, 1, 3) for i in (before, after))
        observation, following = arrays
        action = np.array([1], np.int32)
        buffer = insert(buffer, observation, action, np.ones(1), lost, no, following)
    fields = jax.device_get(buffer.fields)
    assert fields["observation"][0, :, 0].tolist() == [1, 2, 3, 3, 4, 0, 0, 0]
    assert fields["age"][0].tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    assert np.asarray(buffer.tree[0][0]).nonzero()[0].tolist() == [0, 1, 3]
    view = jax.tree.map(lambda leaf: leaf[0], replay.view(buffer))
    sample = view.transition(jnp.array([0, 1, 3]), 1)
    assert sample.observation[:, 0, 0].tolist() == [shown[0], shown[1], shown[3]]
    assert sample.next_observation[:, 0, 0].tolist() == [shown[1], shown[2], shown[4]]


def test_a_write_ends_as_many_starts_more_as_there_are_earlier_parts():
    """Ring of 12, span 1: a full ring without history keeps 11 starts, with h parts 12 - h."""
    for history in (1, 2, 4):
        space = Observation((history,), "uint8", history=history)
        buffer = replay.create(replay.Layout(space, Discrete(2), span=1, capacity=12))
        no = np.array([False])
        for t in range(30):
            shown = [np.clip(np.arange(t + 1 - history, t + 1) + i, i > t, None) for i in (0, 1)]
            observation, following = (np.array([part], np.uint8) for part in shown)
            buffer = insert(buffer, observation, np.zeros(1, int), np.ones(1), no, no, following)
        assert int((buffer.tree[0] > 0).sum()) == 12 - history


def test_bytes_by_hand():
    """100 pictures stored once: 36 bytes, an action, an age, a reward, a flag and a priority."""
    layout = replay.Layout(Observation((3, 4, 9), "uint8", history=3), Discrete(4), 3, 100, seeds=2)
    tree = 4 * (112 + 16)  # of 100 leaves
    assert replay.nbytes(layout) == 2 * (100 * (36 + 4 + 1 + 4 + 1) + tree + 5 * 4 + 1)
    stacked = replay.Layout(Observation((3, 4, 9), "uint8"), Discrete(4), 3, 100, seeds=2)
    assert replay.nbytes(stacked) == replay.nbytes(layout) + 2 * 100 * (108 - 36 - 1)


def test_probabilities_are_shares_of_all_priority():
    flags = np.zeros((60, 2, SEEDS), bool)
    buffer, _ = play(40, 2, flags, np.random.default_rng(0), 59, spaces=ATARI)
    every = jnp.arange(40)
    shares = jax.vmap(lambda view: view.probability(every))(replay.view(buffer))
    leaves = np.asarray(buffer.tree[0][:, :40], np.float64)
    assert len(np.unique(leaves)) > 5
    np.testing.assert_allclose(shares, leaves / leaves.sum(1, keepdims=True), rtol=1e-6)
    assert shares.dtype == jnp.float32
    empty = replay.create(replay.Layout(*ATARI, 2, 40))
    shares = jax.vmap(lambda view: view.probability(every))(replay.view(empty))
    np.testing.assert_array_equal(shares, np.zeros((1, 40)))


def test_importance_weights_make_prioritised_means_uniform_ones():
    """E[f / (n p)] over prioritised draws is the plain mean of f, within five standard errors."""
    flags = np.zeros((60, 2, SEEDS), bool)
    buffer, _ = play(40, 2, flags, np.random.default_rng(1), 59, spaces=ATARI)
    buffer = set_priorities(
        buffer, np.tile(np.arange(40), (SEEDS, 1)), 1.0 + np.tile(np.arange(40) % 5, (SEEDS, 1))
    )
    draws = 20_000

    def estimate(view, key):
        indices = view.sample(key, draws)
        count = (view.tree[0] > 0).sum()
        values = view.reward[indices] / (count * view.probability(indices))
        return values.mean(), values.std() / jnp.sqrt(draws)

    keys = jax.random.split(jax.random.key(0), SEEDS)
    mean, error = jax.vmap(estimate)(replay.view(buffer), keys)
    sampleable = np.asarray(buffer.tree[0][:, :40]) > 0
    exact = (np.asarray(buffer.reward) * sampleable).sum(1) / sampleable.sum(1)
    assert (np.abs(mean - exact) < 5 * error).all()
    plain = (np.asarray(buffer.reward) * np.asarray(buffer.tree[0][:, :40])).sum(1)
    assert (np.abs(plain / np.asarray(buffer.tree[0]).sum(1) - exact) > 5 * error).any()
