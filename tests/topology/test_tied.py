"""Leaves with a tied axis (mean and scale of a noisy weight): one decision for all its entries."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from mst_jax import topology
from mst_jax.topology import rewire
from mst_jax.topology.allocation import total_budget

TIMED = {"end": 90, "interval": 10}
RULES = {
    "static": topology.static,
    "rigl": functools.partial(topology.rigl, **TIMED),
    "gmp": functools.partial(topology.gradual_magnitude_pruning, start=10, **TIMED),
    "growth": functools.partial(topology.gradual_growth, **TIMED),
    "expansion": functools.partial(
        topology.neuroplastic_expansion, growth_end=60, rate=0.07, **TIMED
    ),
}


def shapes(**leaves):
    return {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in leaves.items()}


def tables(plan):
    (group,) = plan.groups
    return np.asarray(group.table.keep), np.asarray(group.table.target)


def test_one_rewire_by_hand():
    """Two places of three weights: of a unit (mean, scale) the mean size counts."""
    structure = topology.tied()
    mask = np.array([[[1, 1, 0], [1, 0, 1]]] * 2, bool)
    weight = np.array([[[4, 1, 0], [-3, 0, 2]], [[0, 4, 0], [1, 0, -1]]], np.float32)
    # mean sizes of the active units: 2, 2.5, 2 and 1.5; three survive: of the ties the first.
    kept = rewire.select(structure, jnp.abs(weight), jnp.int32(4), jnp.asarray(mask))
    np.testing.assert_array_equal(kept, [[[1, 1, 0], [0, 0, 0]]] * 2)
    slope = np.array([[[9, 9, 1], [0, 0, 3]], [[9, 9, 4], [4, 6, 0]]], np.float32)
    # outside: 2.5, 2, 3 and 1.5
    grown = rewire.fill(structure, jnp.asarray(slope), jnp.int32(8), kept)
    np.testing.assert_array_equal(grown, [[[1, 1, 1], [0, 1, 0]]] * 2)


def test_a_scale_that_is_not_a_number_is_chosen_last():
    scores = jnp.array([[[1.0, 5.0, 2.0]], [[1.0, np.nan, 2.0]]])
    everywhere = jnp.ones((2, 1, 3), bool)
    chosen = rewire.select(topology.tied(), scores, jnp.int32(4), everywhere)
    np.testing.assert_array_equal(chosen, [[[1, 0, 1]]] * 2)


@given(
    seed=st.integers(0, 2**31),
    name=st.sampled_from(list(RULES)),
    allocation=st.sampled_from(["er", "erk", "uniform"]),
    ties=st.integers(1, 4),
    sparsity=st.floats(0.1, 0.9).map(lambda s: round(s, 3)),
)
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_single_weights_times_the_axis(seed, name, allocation, ties, sparsity):
    rng = np.random.default_rng(seed)
    single = {f"l{i}": tuple(rng.integers(3, 30, 2).tolist()) for i in range(3)}
    rule = {"l.": RULES[name](sparsity, allocation=allocation)}
    many = {path: (ties, *shape) for path, shape in single.items()}
    plan = topology.plan(shapes(**many), rule, tied={"l.": 0})
    for found, one in zip(tables(plan), tables(topology.plan(shapes(**single), rule)), strict=True):
        np.testing.assert_array_equal(found, ties * one)


@given(
    sides=st.lists(st.tuples(st.integers(3, 20), st.integers(3, 20)), min_size=3, max_size=3),
    ties=st.integers(2, 3),
    sparsity=st.floats(0.1, 0.8).map(lambda s: round(s, 3)),
)
@settings(max_examples=60, deadline=None)
def test_beside_single_weights_the_total_is_exact(sides, ties, sparsity):
    leaves = {"a": (ties, *sides[0]), "b": (ties, *sides[1]), "c": sides[2]}
    size = sum(map(np.prod, leaves.values()))
    try:
        plan = topology.plan(shapes(**leaves), {".": topology.static(sparsity)}, tied={"[ab]": 0})
    except ValueError as error:
        assert "lower the sparsity" in str(error)
        return
    (counts,) = tables(plan)[1]
    missing = total_budget(int(size), sparsity) - sum(counts)
    assert 0 <= missing < (ties if counts[2] == np.prod(sides[2]) else 1)  # else "c" takes it
    assert (counts[:2] % ties == 0).all()
    density = counts / [np.prod(shape) for shape in leaves.values()]
    raw = [sum(side) / np.prod(side) for side in sides]
    for i in range(3):
        for j in range(3):
            if density[i] < 1 and density[j] < 1:  # in proportion, up to a unit
                slack = ties / np.prod(leaves["abc"[i]]) + ties / np.prod(leaves["abc"[j]])
                assert abs(density[i] / raw[i] - density[j] / raw[j]) * min(raw) <= 2 * slack


def test_a_tie_belongs_to_the_leaf_whatever_the_rule():
    leaves = shapes(noisy=(2, 12, 9), odd=(2, 10, 9), plain=(8, 4), scale=(2, 9))
    two_of_four = topology.rigl(0.5, **TIMED, structure=topology.n_of_m(4))
    ties = {"noisy|odd": 0, "scale": -2}
    plan = topology.plan(leaves, {".*": two_of_four}, tied=ties)
    found = {path: entry.regime.structure for path, (_, _, entry) in plan.entries().items()}
    assert found == {
        "noisy": topology.tied(-3, topology.n_of_m(4)),
        "odd": topology.tied(-3),
        "plain": topology.n_of_m(4),
    }
    assert plan.tied == {"noisy": -3, "odd": -3, "scale": -2}
    assert "scale" in plan.dense  # one weight an output: no kernel
    text = str(plan)
    assert "rigl (tied n:4) " in text
    assert "rigl (tied: n:4 does not fit)" in text
    alone = topology.plan(leaves, {"noisy": topology.rigl(0.5, **TIMED)}, tied=ties)
    assert "rigl (tied) " in str(alone)
    said = topology.plan(leaves, {"noisy": topology.rigl(0.5, **TIMED, structure=topology.tied())})
    np.testing.assert_array_equal(tables(said), tables(alone))


@pytest.mark.parametrize(
    ("ties", "what"),
    [
        ({"noise": 0}, "tied leaf 'noise' matches no parameter; the nearest paths are .'noisy'"),
        ({"noisy": 3}, r"'noisy' of shape \(2, 4, 6\) cannot be tied along axis 3"),
        ({"bias": 0}, r"'bias' of shape \(6,\) cannot be tied along axis 0"),
        ({"noisy(": 0}, "not a regular expression"),
    ],
)
def test_ties_that_are_none(ties, what):
    with pytest.raises(ValueError, match=what) as error:
        topology.plan(shapes(noisy=(2, 4, 6), bias=(6,)), {"noisy": topology.static(0.5)}, ties)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "rule",
    [
        topology.set(0.5, by_sign=True, **TIMED),
        topology.snfs(0.5, redistribute=True, **TIMED),
        topology.granet(0.5, start=10, threshold="global", **TIMED),
    ],
)
def test_what_counts_single_weights_is_refused_for_tied_leaves(rule):
    leaves = shapes(noisy=(2, 4, 6), plain=(4, 6))
    with pytest.raises(ValueError, match=r"'noisy' has a tied axis and .* counts single weights"):
        topology.plan(leaves, {".*": rule}, tied={"noisy": 0})
    assert topology.plan(leaves, {"plain": rule}, tied={"noisy": 0}).groups


def test_independent_draws_are_one_a_unit():
    """The published code's masks: every weight by itself, mean and scale together."""
    leaves = shapes(kernel=(2, 60, 50), bias=(2, 50))
    plan = topology.plan(leaves, {".*": topology.network_sparsity(0.75)}, tied={".*": 0})
    tx = topology.sparse(optax.sgd(0.1), plan)
    ones = {path: jnp.ones(leaf.shape) for path, leaf in leaves.items()}
    draw = jax.jit(jax.vmap(lambda key: topology.init(tx, ones, key)))
    params, state = draw(jax.random.split(jax.random.key(0), 2))
    masks = np.asarray(topology.masks(state)["kernel"])
    np.testing.assert_array_equal(masks[:, 0], masks[:, 1])
    assert (masks[0] != masks[1]).any()
    density = np.asarray(plan.groups[0].table.target)[0, 1] / 6000
    assert np.abs(masks.mean(axis=(1, 2, 3)) - density).max() < 5 * np.sqrt(density / 3000)
    assert np.asarray(topology.masks(state)["bias"]).all()
    topology.check(params, state)


def test_check_finds_a_live_scale_under_a_dead_mean():
    leaves = {"k": jnp.ones((2, 4, 5))}
    plan = topology.plan(leaves, {"k": topology.static(0.5)}, tied={"k": 0})
    tx = topology.sparse(optax.sgd(0.1), plan)
    params, state = topology.init(tx, leaves, jax.random.key(0))
    topology.check(params, state, plan)
    mask = np.array(state.masks["k"])
    (on, off) = np.argwhere(mask[0])[0], np.argwhere(~mask[0])[0]
    mask[0][tuple(on)], mask[0][tuple(off)] = False, True
    state = state._replace(masks={"k": jnp.asarray(mask)})
    with pytest.raises(ValueError, match="parts of units: its structure is tied"):
        topology.check(topology.apply(state.masks, params), state, plan)


def test_costs_count_both_products_of_a_noisy_kernel():
    """y = x mu + ((x e_in) sigma) e_out: each weight of either is multiplied once."""
    leaves = shapes(kernel=(2, 10, 8), bias=(2, 8))
    plan = topology.plan(leaves, {"kernel": topology.static(0.75)}, tied={".*": 0})
    cost = topology.costs(plan, steps=10)
    assert (cost.dense_inference, cost.inference) == (2 * 160, 2 * 40)
    assert cost.dense_share == 0
