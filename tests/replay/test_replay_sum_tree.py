"""The sum tree: exact invariants, and sampling frequencies against exact probabilities."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mst_jax.replay import sum_tree

from_leaves = jax.jit(sum_tree.from_leaves)
sample = jax.jit(sum_tree.sample, static_argnums=2)
LARGEST_UNIFORM = np.float32(1) - np.float32(2**-23)


def sequential_sums(children):
    """Sums of 16, one float32 addition after another."""
    sums = np.zeros(children.shape[0], np.float32)
    for column in children.T:
        sums = sums + column
    return sums


def assert_parents_are_sums(tree):
    for children, parents in itertools.pairwise(tree):
        sums = sequential_sums(np.asarray(children).reshape(-1, 16))
        np.testing.assert_array_equal(np.asarray(parents)[: len(sums)], sums)
        assert not np.asarray(parents)[len(sums) :].any()


@pytest.mark.parametrize(
    ("num_leaves", "sizes"),
    [
        (1, [16]),
        (16, [16]),
        (17, [32, 16]),
        (256, [256, 16]),
        (257, [272, 32, 16]),
        (10**6, [10**6, 62512, 3920, 256, 16]),
    ],
)
def test_level_sizes_by_hand(num_leaves, sizes):
    assert sum_tree.level_sizes(num_leaves) == sizes


def test_tree_is_exact_after_thousands_of_updates():
    num_leaves, batch, updates = 65_536, 256, 3_000
    rng = np.random.default_rng(0)
    indices = rng.integers(0, num_leaves, (updates, batch)).astype(np.int32)
    values = rng.lognormal(sigma=2, size=(updates, batch)).astype(np.float32)
    where = rng.random((updates, batch)) < 0.9

    @functools.partial(jax.jit, donate_argnums=0)
    def run(tree, *updates):
        def body(tree, update):
            return sum_tree.replace(tree, *update), None

        return jax.lax.scan(body, tree, updates)[0]

    tree = run(from_leaves(jnp.ones(num_leaves)), indices, values, where)

    expected = np.ones(num_leaves, np.float32)
    for index, value, told in zip(indices, values, where, strict=True):
        index, value = index[told], value[told]
        expected[index] = 0
        np.maximum.at(expected, index, value)
    np.testing.assert_array_equal(tree[0], expected)
    assert_parents_are_sums(tree)
    for level, rebuilt in zip(tree, from_leaves(jnp.asarray(expected)), strict=True):
        np.testing.assert_array_equal(level, rebuilt)
    root = np.asarray(tree[-1]).sum(dtype=np.float64)
    np.testing.assert_allclose(root, expected.sum(dtype=np.float64), rtol=1e-6)


def test_total_of_a_million_values():
    values = np.random.default_rng(0).uniform(size=10**6 - 7).astype(np.float32)
    total = jax.jit(sum_tree.total)(jnp.asarray(values))
    np.testing.assert_allclose(total, values.sum(dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("num_leaves", [5, 300, 5_000])
def test_frequencies_are_the_exact_probabilities(num_leaves):
    draws = 400_000
    rng = np.random.default_rng(num_leaves)
    leaves = rng.lognormal(sigma=1, size=num_leaves).astype(np.float32)
    leaves[rng.random(num_leaves) < 0.3] = 0
    leaves[0] = 1
    indices = sample(from_leaves(jnp.asarray(leaves)), jax.random.key(1), draws)
    counts = np.bincount(indices, minlength=num_leaves)[:num_leaves]
    assert counts.sum() == draws, "an index beyond the leaves"
    assert not counts[leaves == 0].any()
    seen = leaves > 0
    expected = draws * leaves[seen].astype(np.float64) / leaves.sum(dtype=np.float64)
    statistic = ((counts[seen] - expected) ** 2 / expected).sum()
    low, high = stats.chi2.interval(1 - 1e-4, seen.sum() - 1)
    assert low < statistic < high


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="CPU fusion is what it guards")
def test_the_descent_is_compiled_once_however_many_read_its_result():
    """Guards `_computed_once`: without it this draw with its update costs 3.4 times the flops."""
    tree = from_leaves(jnp.ones(65_536))
    key, ones, indices = jax.random.key(0), jnp.ones(256), jnp.zeros(256, jnp.int32)

    def draw(tree, key):
        return sum_tree.sample(tree, key, 256)

    def update(tree, indices):
        return sum_tree.replace(tree, indices, ones, where=ones > 0)

    def flops(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    apart = flops(draw, tree, key) + flops(update, tree, indices)
    assert flops(lambda tree, key: update(tree, draw(tree, key)), tree, key) < 1.2 * apart


def test_draws_are_independent():
    """Neighbouring draws of a batch, and the batches of two keys, are uncorrelated."""
    tree = from_leaves(jnp.ones(4_096))
    a, b = (np.asarray(sample(tree, jax.random.key(i), 100_000)) for i in range(2))
    for x, y in ((a[1:], a[:-1]), (a, b), (a % 16, a // 256)):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.015


def test_small_leaves_beside_a_huge_one_are_all_reachable():
    """With one uniform number for the whole descent only one small leaf in twelve would be."""
    leaves = np.ones(4_096 + 16, np.float32)
    leaves[:16] = [1e8] + [0] * 15
    tree = from_leaves(jnp.asarray(leaves))
    found = np.concatenate(
        [np.asarray(sample(tree, key, 2**22)) for key in jax.random.split(jax.random.key(0))]
    )
    small = found[found > 0]
    expected = 2**23 * 4_096 / (4_096 + 1e8)  # 344 draws: about 330 distinct leaves, else 217
    assert abs(len(small) - expected) < 5 * np.sqrt(expected)
    assert len(np.unique(small)) > 290


@pytest.mark.parametrize("uniform", [0.0, 0.5, LARGEST_UNIFORM])
def test_zero_is_never_drawn_even_at_the_ends(monkeypatch, uniform):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, uniform))
    rng = np.random.default_rng(0)
    draw = jax.jit(lambda tree: sum_tree.sample(tree, jax.random.key(0), 1)[0])
    for _ in range(300):
        leaves = (10 ** rng.uniform(-25, 25, size=300)).astype(np.float32)
        leaves[rng.random(300) < rng.choice([0.1, 0.9, 0.99])] = 0
        leaves[rng.integers(300)] = 1
        index = int(draw(from_leaves(jnp.asarray(leaves))))
        assert index < 300
        assert leaves[index] > 0
        if uniform == 0:
            assert index == leaves.nonzero()[0][0]


def test_empty_tree_gives_its_last_leaf():
    indices = sample(from_leaves(jnp.zeros(40)), jax.random.key(0), 3)
    assert indices.tolist() == [255] * 3


def test_vmapped_equals_looped_bit_for_bit():
    rng = np.random.default_rng(0)
    leaves = jnp.asarray(rng.lognormal(size=(3, 700)).astype(np.float32))
    keys = jax.random.split(jax.random.key(3), 3)
    trees = jax.jit(jax.vmap(sum_tree.from_leaves))(leaves)
    indices = jax.jit(jax.vmap(lambda tree, key: sum_tree.sample(tree, key, 512)))(trees, keys)
    for i in range(3):
        tree = from_leaves(leaves[i])
        for level, alone in zip(trees, tree, strict=True):
            np.testing.assert_array_equal(level[i], alone)
        np.testing.assert_array_equal(indices[i], sample(tree, keys[i], 512))
