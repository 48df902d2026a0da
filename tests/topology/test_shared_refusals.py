"""Counts by score: wrong calls and impossible rules in one line; what a plan prints of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from count_oracle import LEAVES

from mst_jax import topology

SHAPES = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in LEAVES.items()}


def test_neurons_are_asked_for_in_one_line():
    """Wrong calls: no activity, of other leaves, of another size."""
    rule = topology.neuroplastic_expansion(
        0.6, growth_end=8, end=12, interval=2, drop_fraction=0.2, tau=0.0, prune="dormancy"
    )
    plan = topology.plan(SHAPES, {".*": rule})
    tx = topology.sparse(optax.sgd(0.1), plan)
    params = {leaf: jnp.ones(shape) for leaf, shape in LEAVES.items()}
    params, state = topology.init(tx, params, jax.random.key(0))
    assert plan.reads_activity
    for activity, words in (
        (None, "activity={path of a kernel: mean absolute activation"),
        ({"d": jnp.ones(3)}, "no entry for any leaf that is rewired by it ('a', ...), only for"),
        ({"a": jnp.ones(4)}, r"activity['a'] has shape (4,), expected (5,)"),
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            tx.update(params, state, params, step=2, activity=activity)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_rule_that_shares_cannot_be_torn_apart():
    rule = topology.snfs(0.5, end=10, interval=2, redistribute=True)
    params = {leaf: jnp.ones(shape) for leaf, shape in LEAVES.items()}
    sparse = topology.sparse(optax.sgd(0.1), topology.plan(params, {"[ab]": rule}))
    labels = {"a": "sparse", "b": "other", "c": "other"}
    tx = optax.partition({"sparse": sparse, "other": optax.sgd(0.1)}, labels)
    params, state = topology.init(tx, params, jax.random.key(0))
    with pytest.raises(ValueError, match="'b' shares its rule's counts by score with 'a', but is"):
        tx.update(params, state, params, step=2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: topology.granet(0.5, start=1, end=9, threshold="all"),
            "leaf or global, got 'all'",
        ),
        (
            lambda: topology.set(0.5, end=200, by_sign=True, structure=topology.fan_in()),
            "by_sign counts single weights and takes no structure; got fan_in",
        ),
        (
            lambda: topology.snfs(0.5, end=200, redistribute=True, structure=topology.n_of_m(2)),
            "takes no structure; got n:",
        ),
        (lambda: topology.static(0.5, sharing=topology.Sharing()), "needs a timing"),
        (lambda: topology.Sharing(growth="mine"), "own, score or plan, got 'mine'"),
        (lambda: topology.rigl(0.5, end=200, grow_score=topology.adam_gradient), "needs average="),
        (
            lambda: topology.rigl(0.5, end=200, average=0.9, grow_score=topology.adam_gradient),
            "needs average_square=",
        ),
        (
            lambda: topology.neuroplastic_expansion(growth_end=10_000, prune="age"),
            "magnitude or dormancy, got 'age'",
        ),
        (
            lambda: topology.neuroplastic_expansion(growth_end=10_000, rate=8),
            "rate must be in [0, 1]",
        ),
        (lambda: topology.neuroplastic_expansion(growth_end=10_000, tau=-1), "tau must not be neg"),
        (
            lambda: topology.plan(
                SHAPES,
                {".*": topology.granet(0.2, initial=0.5, start=1, end=9, threshold="global")},
            ),
            "granet_global regrows what it drops and cannot grow",
        ),
    ],
)
def test_impossible_variants_are_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_printed_plan_says_what_scores_decide():
    rule = topology.snfs(0.5, end=10, interval=2, redistribute=True)
    lines = str(topology.plan(SHAPES, {".*": rule})).splitlines()
    assert all("-> by score" in line for line in lines[2:5])
    assert lines[-1].split() == ["total", "0.5000", "27"]
    assert lines[2].split()[3] == "snfs_redistributed"
