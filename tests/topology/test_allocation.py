"""Budgets: the tables of the specifications, exact totals, impossible requests."""

import itertools
import math

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from mst_jax import topology
from mst_jax.topology import allocation
from mst_jax.topology.allocation import budgets, total_budget


def densities(shapes, sparsity, kind="er"):
    rule = allocation.named(kind)
    names = [f"l{i}" for i in range(len(shapes))]
    counts = budgets(rule, names, shapes, sparsity)
    return [n / math.prod(s) for n, s in zip(counts, shapes, strict=True)]


def mlp(*widths):
    return list(itertools.pairwise(widths))


# docs/specs/mst-and-mrq.md §3.2, S = 0.6, latents 512, dog.
@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (mlp(512, 512, 512, 512, 1), [0.40, 0.40, 0.40, 1.0]),
        (mlp(512, 1024, 1024, 1024, 1), [0.545, 0.363, 0.363, 1.0]),
        (mlp(512, 2048, 2048, 2048, 1), [0.857, 0.343, 0.343, 1.0]),
        (mlp(512, 4096, 4096, 4096, 1), [1.0, 0.362, 0.362, 1.0]),
        (mlp(512, 512, 512, 38), [0.378, 0.378, 1.0]),
        (mlp(512, 1024, 1024, 38), [0.495, 0.330, 1.0]),
        (mlp(512, 2048, 2048, 38), [0.752, 0.301, 1.0]),
        (
            [*mlp(223, 512, 512, 512), (38, 256), (768, 512), (512, 512), (512, 512), (512, 578)],
            [0.657, 0.399, 0.399, 1.0, 0.332, 0.399, 0.399, 0.376],
        ),
    ],
)
def test_er_tables_of_mst(shapes, expected):
    np.testing.assert_allclose(densities(shapes, 0.6), expected, atol=6e-4)


def simba(inputs, hidden, blocks, heads):
    """Every tensor of SimBa as {path: shape} in the code of Ma et al. 2025."""
    shapes = {"in/kernel": (inputs, hidden), "in/bias": (hidden,)}
    for i in range(blocks):
        shapes |= {
            f"b{i}/ln/scale": (hidden,),
            f"b{i}/ln/bias": (hidden,),
            f"b{i}/up/kernel": (hidden, 4 * hidden),
            f"b{i}/up/bias": (4 * hidden,),
            f"b{i}/down/kernel": (4 * hidden, hidden),
            f"b{i}/down/bias": (hidden,),
        }
    shapes |= {"ln/scale": (hidden,), "ln/bias": (hidden,)}
    for i, width in enumerate(heads):
        shapes |= {f"head{i}/kernel": (hidden, width), f"head{i}/bias": (width,)}
    return shapes


# docs/specs/network-sparsity.md §3.3: (input, FFN, head) sparsities of both networks, kept total.
@pytest.mark.parametrize(
    ("task", "w", "d", "sparsity", "actor", "critic", "kept"),
    [
        ((67, 21), 1, 1, 0.5, (0, 0.558, 0), (0, 0.507, 0), 2.20),
        ((67, 21), 1, 1, 0.8, (0.641, 0.846, 0.126), (0, 0.810, 0), 0.88),
        ((67, 21), 1, 1, 0.9, (0.829, 0.927, 0.584), (0.489, 0.906, 0), 0.44),
        ((67, 21), 5, 1, 0.8, (0, 0.819, 0), (0, 0.802, 0), 21.7),
        ((67, 21), 5, 1, 0.9, (0.299, 0.917, 0), (0, 0.902, 0), 10.9),
        ((67, 21), 4, 3, 0.92, (0.497, 0.927, 0), (0, 0.921, 0), 16.6),
        ((223, 38), 1, 1, 0.8, (0.795, 0.837, 0.430), (0.549, 0.810, 0), 0.90),
        ((223, 38), 1, 1, 0.9, (0.902, 0.922, 0.727), (0.777, 0.906, 0), 0.45),
        ((223, 38), 5, 1, 0.84, (0.583, 0.865, 0), (0, 0.846, 0), 17.5),
        ((223, 38), 5, 1, 0.9, (0.757, 0.921, 0), (0.178, 0.905, 0), 10.9),
        ((223, 38), 4, 3, 0.92, (0.811, 0.928, 0.171), (0.446, 0.922, 0), 16.7),
    ],
)
def test_er_tables_of_network_sparsity(task, w, d, sparsity, actor, critic, kept):
    obs, act = task
    nets = {
        "actor": (simba(obs, 128 * w, d, (act, act)), actor),
        "critic": (simba(obs + act, 512 * w, 2 * d, (1,)), critic),
    }
    total = 0
    for shapes, expected in nets.values():
        tree = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in shapes.items()}
        plan = topology.plan(tree, {".*": topology.network_sparsity(sparsity)})
        counts = dict(zip(plan.entries(), plan.tables[0].target[0].tolist(), strict=True))
        total += sum(counts.values())
        assert sum(counts.values()) == total_budget(sum(map(math.prod, shapes.values())), sparsity)
        found = [
            1 - counts[name] / math.prod(shapes[name])
            for name in ("in/kernel", "b0/up/kernel", "head0/kernel")
        ]
        np.testing.assert_allclose(found, expected, atol=6e-4)
        vectors = [name for name, shape in shapes.items() if len(shape) == 1]
        assert all(counts[name] == shapes[name][0] for name in vectors)
    np.testing.assert_allclose(total / 1e6, kept, rtol=5e-3)


def test_erk_counts_kernel_axes_and_er_does_not():
    # Two layers, so densities are in the ratio of the raw ones: by hand.
    shapes = [(3, 3, 16, 32), (32, 64)]
    erk = densities(shapes, 0.8, "erk")
    er = densities(shapes, 0.8, "er")
    raw_erk = (3 + 3 + 16 + 32) / (9 * 16 * 32), (32 + 64) / (32 * 64)
    raw_er = (16 + 32) / (16 * 32), (32 + 64) / (32 * 64)
    np.testing.assert_allclose(erk[0] / erk[1], raw_erk[0] / raw_erk[1], rtol=2e-3)
    np.testing.assert_allclose(er[0] / er[1], raw_er[0] / raw_er[1], rtol=2e-3)


def test_uniform_and_explicit():
    assert densities([(10, 10), (20, 20)], 0.75, "uniform") == [0.25, 0.25]
    rule = allocation.explicit({"a.*": 0.9, ".*": 0.5})
    assert budgets(rule, ["a/kernel", "b/kernel"], [(10, 10), (10, 10)], 1.0) == [10, 50]
    assert budgets(rule, ["a/kernel", "b/kernel"], [(10, 10), (10, 10)], 0.0) == [100, 100]
    with pytest.raises(ValueError, match="no explicit sparsity for 'c'"):
        budgets(allocation.explicit({"a": 0.5}), ["c"], [(2, 2)], 1.0)


def test_budgets_are_exact_where_float32_is_not():
    assert total_budget(17_000_001, 0.0) == 17_000_001
    assert total_budget(100, 0.29) == 71  # 0.29 * 100 is 28.999999999999996 in floats
    assert total_budget(10, 0.7) == 3


def test_ties_go_to_the_earlier_leaf():
    """Fault C12: 5.5 and 5.5, of which floats made one a little larger."""
    assert budgets(allocation.named("er"), ["a", "b"], [(2, 5), (3, 4)], 0.5) == [6, 5]
    shapes = [(210, 2), (399, 487), (223, 391)]
    assert budgets(allocation.uniform(), list("abc"), shapes, 0.9) == [42, 19_432, 8719]


@pytest.mark.parametrize("kind", ["er", "erk", "uniform"])
@given(
    shapes=st.lists(st.tuples(st.integers(8, 300), st.integers(8, 300)), min_size=1, max_size=8),
    sparsity=st.floats(0.0, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_the_total_is_exact_to_one_weight(kind, shapes, sparsity):
    names = [f"l{i}" for i in range(len(shapes))]
    counts = budgets(allocation.named(kind), names, shapes, sparsity)
    assert sum(counts) == total_budget(sum(map(math.prod, shapes)), sparsity)
    assert all(0 < n <= math.prod(s) for n, s in zip(counts, shapes, strict=True))


@given(
    shapes=st.lists(st.tuples(st.integers(2, 20), st.integers(2, 20)), min_size=3, max_size=6),
    first=st.integers(0, 50),
)
@settings(max_examples=25, deadline=None)
def test_gradual_budgets_never_wobble(shapes, first):
    # One weight more or less at a time: plain largest remainders would hand weights back and forth.
    names = [f"l{i}" for i in range(len(shapes))]
    size = sum(map(math.prod, shapes))
    levels = [min(first + i, size // 2) / size for i in range(40)]
    for ordered in (levels, levels[::-1]):
        previous = None
        for level in ordered:
            growing = ordered is not levels  # from high to low sparsity
            counts = budgets(
                allocation.erdos_renyi(), names, shapes, level, None, previous, growing
            )
            assert sum(counts) == total_budget(size, level)
            if previous is not None:
                assert len({0, *np.sign(np.subtract(counts, previous)).tolist()}) <= 2
            previous = counts


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        (
            lambda: budgets(allocation.uniform(), list("abc"), [(2, 2), (2, 2), (30, 30)], 0.95),
            "'b' with no weights",
        ),
        (lambda: budgets(allocation.uniform(), ["a"], [(2, 2)], 1.5), r"in \[0, 1\]"),
        (lambda: topology.static(1.0), r"sparsity must be in \[0, 1\)"),
        (lambda: topology.static(-0.1), "sparsity must be"),
        (lambda: topology.rigl(0.5, end=200, drop_fraction=1.5), "drop_fraction"),
        (lambda: topology.static(0.5, allocation="erdos"), "unknown allocation"),
    ],
)
def test_impossible_requests_stop(request_, match):
    with pytest.raises(ValueError, match=match):
        request_()
