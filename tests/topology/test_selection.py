"""Exact-k selection against a NumPy oracle, with everything that breaks selections elsewhere."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings

from mst_jax.topology.selection import sort_keys, top_k

N = 41  # static, so that every example runs the same program
TINY = np.float32(1e-45)  # smallest denormal
PALETTE = np.array(
    [0.0, -0.0, 1, -1, TINY, -TINY, 3 * TINY, 1e-38, np.inf, -np.inf, np.nan, -np.nan, 2.5, 3e38],
    np.float32,
)
select = jax.jit(top_k)


def oracle(scores, k, eligible):
    """The first k eligible entries in the order: largest first, NaN last, lowest index first."""
    flat, able = np.asarray(scores).reshape(-1), np.asarray(eligible).reshape(-1)
    # Python floats, because NumPy may flush denormals; NaN as the pair that sorts last.
    order = sorted(
        np.flatnonzero(able).tolist(),
        key=lambda i: (1, 0.0, i) if np.isnan(flat[i]) else (0, -float(flat[i]), i),
    )
    mask = np.zeros(flat.size, bool)
    mask[order[: max(int(k), 0)]] = True
    return mask.reshape(np.shape(scores))


@given(
    picks=st.lists(st.integers(0, len(PALETTE) - 1), min_size=N, max_size=N),
    able=st.lists(st.booleans(), min_size=N, max_size=N),
    k=st.integers(-1, N + 1),
)
@settings(max_examples=200, deadline=None)
def test_equals_the_oracle_on_awkward_floats(picks, able, k):
    scores, eligible = PALETTE[picks], np.array(able)
    np.testing.assert_array_equal(select(scores, k, eligible), oracle(scores, k, eligible))


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(0, N), levels=st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_equals_the_oracle_on_numbers_with_ties(seed, k, levels):
    rng = np.random.default_rng(seed)
    scores = (np.round(rng.standard_normal(N) * levels) / levels).astype(np.float32)
    eligible = rng.random(N) < rng.random()
    np.testing.assert_array_equal(select(scores, k, eligible), oracle(scores, k, eligible))


@pytest.mark.parametrize("size", [1, 2, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("case", ["constant", "random", "two values", "all NaN"])
def test_sizes_around_the_rows_of_the_tie_break(size, case):
    rng = np.random.default_rng(size)
    scores = {
        "constant": np.zeros(size),
        "random": rng.standard_normal(size),
        "two values": rng.integers(0, 2, size),
        "all NaN": np.full(size, np.nan),
    }[case].astype(np.float32)
    eligible = rng.random(size) < 0.7
    chosen = jax.jit(jax.vmap(top_k, in_axes=(None, 0, None)))
    ks = np.unique([0, 1, size // 3, size - 1, size, size + 5]).astype(np.int32)
    ks = np.resize(ks, 6)
    for k, mask in zip(ks, np.asarray(chosen(scores, ks, eligible)), strict=True):
        np.testing.assert_array_equal(mask, oracle(scores, k, eligible))


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float32, np.uint32]
)
def test_every_dtype(dtype):
    rng = np.random.default_rng(0)
    if dtype == np.uint32:
        scores = rng.integers(0, 2**31, N, dtype=np.uint32) * 2  # the lowest bit is ignored
    else:
        scores = (rng.standard_normal(N) * np.repeat([1, 1e-6], [N // 2, N - N // 2])).astype(dtype)
    eligible = rng.random(N) < 0.8
    for k in (0, 7, 20, N):
        np.testing.assert_array_equal(
            jax.jit(top_k)(scores, k, eligible), oracle(scores.astype(np.float64), k, eligible)
        )


def test_float64_differences_below_float32():
    with jax.enable_x64(True):
        scores = np.array([1.0, 1.0 + 1e-12, 1.0 - 1e-12, np.nan, -0.0, 0.0])
        able = np.ones(6, bool)
        for k in range(7):
            np.testing.assert_array_equal(top_k(scores, k, able), oracle(scores, k, able))


def test_keys_leave_room_for_ineligible_and_nan():
    scores = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan, 5.0], np.float32)
    keys = np.asarray(sort_keys(scores, np.array([1, 1, 1, 1, 1, 0], bool)))
    assert keys[5] == 0
    assert keys[4] == 1
    assert keys[1] == keys[2]
    assert 2 <= keys[0] < keys[1] < keys[3]


def test_under_vmap_and_scan_with_a_k_per_seed():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((4, 9, 7)).astype(np.float32)
    eligible = rng.random((4, 9, 7)) < 0.6
    ks = np.array([0, 5, 17, 63], np.int32)

    def scanned(carry, x):
        return carry, top_k(*x)

    mapped = jax.jit(jax.vmap(top_k))(scores, ks, eligible)
    looped = jax.jit(lambda x: jax.lax.scan(scanned, 0, x)[1])((scores, ks, eligible))
    for i in range(4):
        np.testing.assert_array_equal(mapped[i], oracle(scores[i], ks[i], eligible[i]))
    np.testing.assert_array_equal(mapped, looped)


def test_jit_equals_eager_and_no_sort_is_used():
    rng = np.random.default_rng(0)
    scores, eligible = rng.standard_normal(N).astype(np.float32), rng.random(N) < 0.6
    np.testing.assert_array_equal(top_k(scores, 11, eligible), select(scores, 11, eligible))
    assert "sort" not in str(jax.make_jaxpr(top_k)(scores, jnp.int32(3), eligible)).replace(
        "sort_keys", ""
    )
