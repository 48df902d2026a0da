"""The ring against a slow NumPy model, and by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import SEEDS, insert, play, set_priorities

from mst_jax import replay
from mst_jax.agents.parts.losses import n_step_return
from mst_jax.envs import Continuous, Discrete, Observation


def small(capacity, span, observation=1, action=1, **sizes):
    """A buffer of flat observations."""
    spaces = Observation((observation,)), Continuous(action)
    return replay.create(replay.Layout(*spaces, span, capacity, **sizes))


END = st.sampled_from([(False, False)] * 5 + [(True, False), (False, True), (True, True)])


@settings(max_examples=25, deadline=None)
@given(
    ends=st.lists(st.tuples(*[END] * SEEDS), min_size=1, max_size=60),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_model(ends, seed):
    flags = [tuple(np.array(step).T) for step in ends]
    play(19, 6, flags, np.random.default_rng(seed), check_every=7)


@settings(max_examples=10, deadline=None)
@given(
    ends=st.lists(st.tuples(*[END] * SEEDS * 3), min_size=1, max_size=60),
    seed=st.integers(0, 2**32 - 1),
)
def test_three_rings_equal_the_model(ends, seed):
    flags = [tuple(np.array(step).T) for step in ends]
    play(11, 4, flags, np.random.default_rng(seed), check_every=7, environments=3)


@pytest.mark.parametrize(("capacity", "span"), [(40, 6), (8, 6), (5, 3), (3, 1), (16, 1)])
@pytest.mark.parametrize("hazard", [0.0, 0.03, 0.3])
def test_equals_the_model_over_many_wraps(capacity, span, hazard):
    rng = np.random.default_rng(capacity + span)
    flags = rng.random((5 * capacity + 30, 2, SEEDS)) < hazard
    buffer, tapes = play(capacity, span, flags, rng, check_every=15)
    assert all(len(tape.slots) > 4 * capacity for (tape,) in tapes)
    if hazard == 0.3:
        assert len(set(np.asarray(buffer.cursor)[:, 0])) > 1, "cursors differ between seeds"


@pytest.mark.parametrize(("environments", "ring", "span"), [(2, 8, 6), (3, 5, 3), (2, 3, 1)])
def test_rings_equal_the_model_over_many_wraps(environments, ring, span):
    rng = np.random.default_rng(ring)
    flags = rng.random((5 * ring + 30, 2, SEEDS * environments)) < 0.1
    buffer, tapes = play(ring, span, flags, rng, check_every=15, environments=environments)
    assert all(len(tape.slots) > 4 * ring for own in tapes for tape in own)
    cursors = np.asarray(buffer.cursor)
    assert (cursors[:, 0] != cursors[:, 1]).any(), "cursors differ between environments"


def test_rings_by_hand():
    """Two rings of 5 slots, span 2: 0-4 and 5-9; the first wraps, the second ends an episode."""
    buffer = small(10, span=2, environments=2)
    for t in range(6):
        value = np.array([[t], [10 + t]], np.float32)
        ends = np.array([False, t == 1])
        buffer = insert(buffer, value, value, value[:, 0], ends & False, ends, value + 1)
    # Ring 1: steps 0 and 1, the final observation 12, steps 2, 3 (overwritten), then wraps.
    rows = np.asarray(buffer.fields["rows"])
    assert rows[0, :, 0].tolist() == [5, 6, 2, 3, 4, 14, 15, 16, 12, 13]
    assert np.asarray(buffer.cursor[0]).tolist() == [1, 2]
    assert np.asarray(buffer.filled[0]).tolist() == [4, 4]
    assert np.asarray(buffer.tree[0][0, :10]).nonzero()[0].tolist() == [2, 3, 4, 5, 8, 9]
    view = jax.tree.map(lambda leaf: leaf[0], replay.view(buffer))
    starts = jnp.array([4, 9])  # the last slot of each ring
    sample = view.transition(starts, 2)
    np.testing.assert_array_equal(sample.observation[:, 0], [4, 13])
    np.testing.assert_array_equal(sample.reward, [[4, 5], [13, 14]])
    np.testing.assert_array_equal(sample.next_observation[:, 0], [6, 15])
    buffer = set_priorities(buffer, np.array([[9, 4]]), np.array([[5, 3]], np.float32))
    assert np.asarray(buffer.tree[0][0, :10]).tolist() == [0, 0, 1, 1, 3, 1, 0, 0, 1, 5]


def leaves_after(flags, span=3, capacity=12):
    buffer = small(capacity, span)
    for t, (terminated, truncated) in enumerate(flags):
        value = np.full((1, 1), t, np.float32)
        ends = np.array([terminated]), np.array([truncated])
        buffer = insert(buffer, value, value, value[0], *ends, value + 1)
    return buffer, np.asarray(buffer.tree[0][0, :capacity])


GOES_ON, TERMINATES, TRUNCATES = (False, False), (True, False), (False, True)


def test_sampleable_by_hand():
    goes_on = [GOES_ON] * 4
    _, leaves = leaves_after(goes_on)
    assert leaves.nonzero()[0].tolist() == [0, 1]
    _, leaves = leaves_after([*goes_on, TRUNCATES])  # slots 0-4 and the final observation in 5
    assert leaves.nonzero()[0].tolist() == [0, 1, 2]
    _, leaves = leaves_after([*goes_on, TERMINATES])
    assert leaves.nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    _, leaves = leaves_after([*goes_on, (True, True)])
    assert leaves.nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    _, leaves = leaves_after([*goes_on, TRUNCATES, GOES_ON, TERMINATES])  # slots 6, 7, final in 8
    assert leaves.nonzero()[0].tolist() == [0, 1, 2, 6, 7]


def test_final_observation_is_kept():
    buffer, _ = leaves_after([GOES_ON, TERMINATES, GOES_ON])
    rows = np.asarray(buffer.fields["rows"][0])
    assert rows[:5].tolist() == [[0, 0], [1, 1], [2, 0], [2, 2], [3, 0]]
    assert np.asarray(buffer.terminated[0, :5]).tolist() == [0, 1, 0, 0, 0]


def test_every_start_of_an_episode_that_terminates_by_hand():
    """Six rewards 10^k, three steps a return. A program of the field never stores the last start,
    and takes the terminal state to be one step nearer than it is."""
    buffer = small(12, span=3)
    for k in range(6):
        row = np.full((1, 1), k, np.float32)
        ends = np.array([k == 5]), np.array([False])
        buffer = insert(buffer, row, row, np.array([10.0**k], np.float32), *ends, row + 1)
    starts = np.asarray(buffer.tree[0][0, :12]).nonzero()[0]
    view = jax.tree.map(lambda leaf: leaf[0], replay.view(buffer))
    sample = view.transition(jnp.asarray(starts), 3)
    np.testing.assert_array_equal(sample.observation[:, 0], [0, 1, 2, 3, 4, 5])
    returns, bootstrap = n_step_return(sample.reward, sample.terminated, 1.0)
    assert returns.tolist() == [111, 1_110, 11_100, 111_000, 110_000, 100_000]
    assert bootstrap.tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_array_equal(sample.next_observation[:3, 0], [3, 4, 5])


def test_mean_absolute_reward_by_hand():
    buffer = small(4, span=1, seeds=2)
    view = jax.jit(jax.vmap(lambda view: view.mean_absolute_reward()))
    zero, no = np.zeros((2, 1), np.float32), np.array([False, False])
    assert view(replay.view(buffer)).tolist() == [0, 0]
    buffer = insert(buffer, zero, zero, np.array([1.0, -2.0]), no, no, zero)
    assert view(replay.view(buffer)).tolist() == [1, 2]
    buffer = insert(buffer, zero, zero, np.array([-3.0, 4.0]), no, np.array([True, False]), zero)
    np.testing.assert_allclose(view(replay.view(buffer)), [4 / 3, 3])
    buffer = insert(buffer, zero, zero, np.array([5.0, 6.0]), no, no, zero)
    # Seed 0 wrote slots 3 and 0: |-3|, the placeholder's 0 and 5 remain.
    np.testing.assert_allclose(view(replay.view(buffer)), [8 / 3, 4])


def test_mean_absolute_reward_of_a_large_buffer_is_accurate():
    buffer = small(10**6, span=1)
    reward = np.random.default_rng(0).uniform(0, 2, (1, 10**6)).astype(np.float32)
    buffer = dataclasses.replace(
        buffer, reward=jnp.asarray(reward), filled=jnp.full((1, 1), 10**6, jnp.int32)
    )
    mean = jax.vmap(lambda view: view.mean_absolute_reward())(replay.view(buffer))
    np.testing.assert_allclose(mean[0], reward.mean(dtype=np.float64), rtol=1e-6)


def test_terminal_seen_only_after_termination():
    assert not leaves_after([GOES_ON, TRUNCATES])[0].terminal_seen[0]
    assert leaves_after([GOES_ON, TERMINATES] + [GOES_ON] * 20)[0].terminal_seen[0]


def test_new_starts_get_the_running_maximum_which_never_decays():
    buffer, _ = leaves_after([GOES_ON] * 4)
    buffer = set_priorities(buffer, np.array([[0]]), np.array([[7.0]], np.float32))
    buffer = set_priorities(buffer, np.array([[0]]), np.array([[2.0]], np.float32))
    value, no = np.zeros((1, 1), np.float32), np.array([False])
    buffer = insert(buffer, value, value, value[0], no, no, value)
    assert np.asarray(buffer.tree[0][0, :4]).tolist() == [2, 1, 7, 0]


def test_unusable_priorities_are_ignored_and_the_largest_duplicate_counts():
    buffer, _ = leaves_after([GOES_ON] * 8)  # 0 to 5 are sampleable
    indices = np.array([[0, 1, 2, 3, 4, 4, 4, 9]])
    priorities = np.array([[np.nan, np.inf, -np.inf, 0, 3, 5, np.nan, 99]], np.float32)
    buffer = set_priorities(buffer, indices, priorities)
    assert np.asarray(buffer.tree[0][0, :12]).tolist() == [1, 1, 1, 1, 5, 1] + [0] * 6
    assert buffer.max_priority.tolist() == [5]


def test_indices_out_of_range_change_nothing():
    """Fault A10: with a capacity of whole blocks the tree's last leaf is a slot."""
    for capacity, steps in ((12, 5), (12, 20), (16, 24), (48, 56), (300, 5), (4096, 5)):
        buffer, _ = leaves_after([GOES_ON] * steps, capacity=capacity)
        assert steps < capacity or buffer.tree[0][0, capacity - 1] > 0
        before = jax.device_get(buffer)
        indices = np.array([[-1, -7, capacity, capacity + 20, 16 * capacity, 2**31 - 1]], np.int32)
        after = jax.device_get(set_priorities(buffer, indices, np.full((1, 6), 9, np.float32)))
        jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize("row_dtype", ["bfloat16", "float16"])
def test_half_precision_rows_round_rows_only(row_dtype):
    buffer = small(8, span=1, observation=2, row_dtype=row_dtype)
    observation, action = np.array([[1.001, -3.3]], np.float32), np.array([[0.3333]], np.float32)
    reward, no = np.array([1.0009765], np.float32), np.array([False])
    buffer = insert(buffer, observation, action, reward, no, no, observation + 1)

    def one(view):
        return view.transition(jnp.zeros(1, jnp.int32), 1), view.mean_absolute_reward()

    sample, mean = jax.vmap(one)(replay.view(buffer))
    assert sample.observation.dtype == sample.action.dtype == jnp.float32
    stored = jnp.dtype(row_dtype)
    rounded = [x.astype(stored).astype(np.float32) for x in (observation, action)]
    assert not np.array_equal(rounded[0], observation)
    np.testing.assert_array_equal(sample.observation[0], rounded[0])
    np.testing.assert_array_equal(sample.action[0], rounded[1])
    assert sample.reward[0, 0, 0] == mean[0] == reward[0]


def test_nbytes_by_hand_and_as_allocated():
    spaces = Observation((5,)), Continuous(3)
    layout = replay.Layout(*spaces, span=6, capacity=300, seeds=2, row_dtype="bfloat16")
    slot = 8 * 2 + 4 + 1  # a row, its reward, its flag
    tree = 4 * (304 + 32 + 16)
    seed = 4 * 4 + 1  # cursor, filled, steps, running maximum; terminal_seen
    expected = 2 * (300 * slot + tree + seed)
    assert replay.nbytes(layout) == expected
    buffer = replay.create(layout)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(buffer)) == expected


def test_sampling_an_empty_buffer_gives_an_index_in_range():
    buffer = small(21, span=2)
    indices = jax.vmap(lambda view: view.sample(jax.random.key(0), 8))(replay.view(buffer))
    assert ((indices >= 0) & (indices < 21)).all()


PICTURES = Observation((4, 4, 6), "uint8", history=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity": 7}, "capacity 7 is too small for a span of 6: use at least 8"),
        ({"seeds": 0}, "seeds must be at least 1, not 0"),
        ({"span": 0}, "span must be at least 1, not 0"),
        ({"action": Continuous(0)}, "action axis 0 must be at least 1"),
        ({"observation": Observation((-1,))}, "observation axis 0 must be at least 1"),
        ({"observation": Observation(())}, "needs at least one axis"),
        ({"observation": Observation((3,), "int32")}, "must be float32 or uint8 to be stored, not"),
        ({"observation": Observation((4,), history=3)}, r"\(4,\) cannot hold a history of 3"),
        ({"observation": Observation((0,), history=0)}, "must be at least 1"),
        ({"observation": PICTURES}, "for a span of 6, a history of 3: use at least 10"),
        ({"row_dtype": "int8"}, "row_dtype must be one of float32, bfloat16, float16, not int8"),
        ({"environments": 0}, "environments must be at least 1, not 0"),
        ({"environments": 3}, "capacity 8 cannot be shared evenly by 3 environments: use 6 or"),
        ({"environments": 2}, "for a span of 6 and 2 environments: use at least 16"),
    ],
)
def test_impossible_layouts_are_refused(change, message):
    sizes = {"observation": Observation((1,)), "action": Continuous(1), "span": 6, "capacity": 8}
    replay.Layout(**sizes)
    with pytest.raises(ValueError, match=message):
        replay.Layout(**sizes | change)


def test_wrong_shapes_and_dtypes_are_refused():
    buffer = small(8, span=1, observation=3, seeds=2)
    o, a, x, no = np.zeros((2, 3)), np.zeros((2, 1)), np.zeros(2), np.zeros(2, bool)
    with pytest.raises(
        ValueError, match=r"next_observation must be float32\[2, 3\], not float32\[3\]"
    ):
        replay.insert(buffer, o, a, x, no, no, o[0])
    with pytest.raises(ValueError, match=r"reward must be float32\[2\], not float32\[2, 1\]"):
        replay.insert(buffer, o, a, a, no, no, o)
    with pytest.raises(ValueError, match=r"truncated must be bool\[2\], not float32\[2\]"):
        replay.insert(buffer, o, a, x, no, x, o)
    with pytest.raises(ValueError, match=r"indices must have shape \(2, batch\), not \(2,\)"):
        replay.set_priorities(buffer, x, x)
    with pytest.raises(ValueError, match=r"priorities must be float32\[2, 1\], not float32\[2\]"):
        replay.set_priorities(buffer, np.zeros((2, 1), int), x)
    layout = replay.Layout(PICTURES, Discrete(3), span=1, capacity=8, seeds=2)
    o, a = np.zeros((2, 4, 4, 6), np.uint8), np.zeros(2, int)
    buffer = replay.insert(replay.create(layout), o, a, x, no, no, o)
    with pytest.raises(
        ValueError,
        match=r"observation must be uint8\[2, 4, 4, 6\], not float32\[2, 4, 4, 6\]",
    ):
        replay.insert(buffer, o.astype(np.float32), a, x, no, no, o)
    with pytest.raises(ValueError, match=r"action must be int32\[2\], not float32\[2\]"):
        replay.insert(buffer, o, x, x, no, no, o)


def test_views_refuse_what_they_cannot_read():
    buffer = small(8, span=3, observation=3, seeds=2)
    start = jnp.zeros(1, jnp.int32)
    with pytest.raises(ValueError, match=r"for one seed: call them under jax\.vmap"):
        replay.view(buffer).sample(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="4 steps asked of a buffer whose span is 3"):
        jax.vmap(lambda view: view.transition(start, 4))(replay.view(buffer))
    with pytest.raises(ValueError, match="0 steps asked"):
        jax.vmap(lambda view: view.subtrajectory(start, 0))(replay.view(buffer))
