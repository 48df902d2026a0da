"""Shares of whole numbers, and one threshold over several leaves, against exact oracles."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from count_oracle import LEAVES, best, shared_out, split
from hypothesis import given, settings

from mst_jax.topology.apportion import apportion, as_weights
from mst_jax.topology.selection import top_k, top_k_counts


@given(
    total=st.integers(-5, 2**31 - 1),
    parts=st.lists(
        st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**29 - 1)), min_size=4, max_size=4
    ),
)
@settings(max_examples=200, deadline=None)
def test_apportionment_is_exact(total, parts):
    weights, room = zip(*parts, strict=True)
    found = jax.jit(apportion)(jnp.int32(total), jnp.array(weights), jnp.array(room))
    assert found.tolist() == shared_out(total, weights, room)
    assert sum(found.tolist()) == min(max(total, 0), sum(room))


@pytest.mark.parametrize(
    ("total", "weights", "room", "expected"),
    [
        (3, [1, 1, 1, 1], [9, 9, 9, 9], [1, 1, 1, 0]),  # equal remainders: the earlier leaves
        (10, [1, 1, 1, 100], [9, 9, 9, 4], [2, 2, 2, 4]),  # one is full, the rest is shared
        (7, [5, 0, 5, 0], [9, 0, 9, 0], [4, 0, 3, 0]),
        (99, [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]),
        (-3, [1, 2, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0]),
    ],
)
def test_apportionment_by_hand(total, weights, room, expected):
    assert apportion(jnp.int32(total), jnp.array(weights), jnp.array(room)).tolist() == expected


def test_scores_become_weights():
    """NaN and zero get the least, infinity the most; if all are so, shares are equal."""
    big = 2**27
    assert as_weights(jnp.array([0.5, 1.0, jnp.nan, 0.0])).tolist() == [big // 2 + 1, big + 1, 1, 1]
    assert as_weights(jnp.array([jnp.inf, 1.0, 0.0, 0.0])).tolist() == [big + 1, 1, 1, 1]
    assert as_weights(jnp.array([jnp.nan, 0.0, jnp.nan, 0.0])).tolist() == [1, 1, 1, 1]


@given(seed=st.integers(0, 10_000), k=st.integers(-1, 40))
@settings(max_examples=100, deadline=None)
def test_one_threshold_over_several_leaves(seed, k):
    """Exactly the k best of all leaves; ties by leaf, then index; NaN last."""
    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, 4, shape).astype(np.float32) for shape in LEAVES.values()]
    for s in scores:
        s[rng.random(s.shape) < 0.2] = rng.choice([np.nan, np.inf, -np.inf, -0.0])
    eligible = [rng.random(s.shape) < 0.6 for s in scores]
    counts = jax.jit(top_k_counts)(scores, jnp.int32(k), eligible)
    joined, allowed = (np.concatenate([x.reshape(-1) for x in y]) for y in (scores, eligible))
    expected = best(joined, k, allowed)
    for s, n, e, mask in zip(scores, counts, eligible, split(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(top_k(s, n, e)).reshape(-1), mask)
