"""Topology-Aware Revival: its counts by hand (docs/specs/tar.md §2), and what comes to life."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mst_jax import topology
from mst_jax.topology.revival import need, shares_by_need

PARAMS = {"a": {"kernel": jnp.ones((8, 8))}, "b": {"kernel": jnp.ones((2, 8))}}


def revival(**changes):
    settings = {"start": 3, "reserve": 0.25, "allocation": "uniform"} | changes
    return topology.topology_aware_revival(settings.pop("sparsity", 0.5), **settings)


def test_counts_by_hand():
    (group,) = topology.plan(PARAMS, {".*": revival()}).groups
    assert group.table.target.tolist() == [[24, 6], [27, 13]]
    assert group.table.keep.tolist() == [[24, 6], [24, 6]], "nothing is dropped"
    assert list(group.timing.steps) == [3]


@pytest.mark.parametrize(
    ("floor", "last"),
    [(0.0, [26, 14]), (1.0, [29, 11])],  # 1 : 4 of ten; five each
)
def test_the_floor_is_shared_evenly_and_the_rest_by_need(floor, last):
    (group,) = topology.plan(PARAMS, {".*": revival(floor=floor)}).groups
    assert group.table.target[-1].tolist() == last


def test_a_full_leaf_leaves_its_part_to_the_others():
    shapes = [(8, 8), (2, 8)]
    assert need(Fraction(6), (2, 8)) == Fraction(64, 6)
    shares = shares_by_need(Fraction(30), [Fraction(24), Fraction(6)], shapes, 0.0)
    assert shares == [20, 10], "1 : 4 would be 6 and 24, and there is room for 10"
    everything = shares_by_need(Fraction(90), [Fraction(24), Fraction(6)], shapes, 0.5)
    assert everything == [40, 10]


@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9, 0.95])
def test_it_ends_with_as_many_weights_as_a_static_mask(sparsity):
    params = {f"layer_{i}": {"kernel": np.zeros(s)} for i, s in enumerate(((67, 512), (512, 24)))}
    (ours,) = topology.plan(params, {".*": revival(sparsity=sparsity, reserve=0.05)}).groups
    (fixed,) = topology.plan(params, {".*": topology.static(sparsity)}).groups
    assert ours.table.target[-1].sum() == fixed.table.target.sum()
    assert (ours.table.target[-1] >= ours.table.target[0]).all()
    assert ours.table.target[0].sum() == pytest.approx(0.95 * fixed.table.target.sum(), abs=1)


def test_one_revival_at_random_for_each_seed_then_nothing_moves():
    tx = topology.sparse(optax.sgd(0.1), topology.plan(PARAMS, {".*": revival()}))
    keys = jax.random.split(jax.random.key(0), 2)
    params, state = jax.vmap(lambda key: topology.init(tx, PARAMS, key))(keys)
    update = jax.jit(jax.vmap(lambda g, s, p, i: tx.update(g, s, p, step=i), (0, 0, 0, None)))
    seen, drawn = [], topology.masks(state)
    for step in range(6):
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = update(grads, state, params, jnp.int32(step))
        masks = topology.masks(state)
        params = jax.vmap(topology.apply_updates)(params, updates, masks)
        seen.append(np.asarray(masks["a"]["kernel"]))
    first, last = np.asarray(drawn["a"]["kernel"]), seen[-1]
    assert all((mask == first).all() for mask in seen[:3])
    assert all((mask == last).all() for mask in seen[3:])
    assert (last >= first).all()
    assert last.sum(axis=(1, 2)).tolist() == [27, 27]
    revived = last & ~first
    assert (revived[0] != revived[1]).any(), "every seed revives its own"
    # One plain step down a gradient of one from zero, and two more: as any other weight since.
    np.testing.assert_allclose(np.asarray(params["a"]["kernel"])[revived], -0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reserve": 0.0}, "reserve must be above 0"),
        ({"reserve": 1.0}, r"reserve must be in \[0, 1\)"),
        ({"sparsity": 0.0}, "sparsity must be above 0"),
        ({"floor": 1.5}, r"floor must be in \[0, 1\]"),
    ],
)
def test_what_cannot_be_revived_is_refused(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        revival(**changes)
    assert "\n" not in str(error.value)


def test_another_allocation_is_that_of_the_drawn_mask():
    """What a module's setting does to the regime's own allocation."""
    named = topology.REGIMES["topology_aware_revival"]
    regime = named(sparsity=0.5, interval=1, start=3, end=9, drop_fraction=0.3)
    uniform = regime.allocation.with_base(topology.uniform())
    drawn = uniform.densities(["a", "b"], [(8, 8), (2, 8)], 0.525)
    assert drawn == [Fraction(475, 1000)] * 2
    after = uniform.densities(["a", "b"], [(8, 8), (2, 8)], 0.5)
    assert after[0] < 0.5 < after[1]
    assert topology.erdos_renyi().with_base(topology.uniform()).name == "uniform"
