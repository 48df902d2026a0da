"""Regimes by name, and what `check_regime` says of one's own."""

import dataclasses

import jax.numpy as jnp
import pytest

from mst_jax import topology
from mst_jax.topology import REGIMES, Timing, check_regime, schedules


@pytest.mark.parametrize("name", sorted({*REGIMES} - {"dense", "network_sparsity"}))
@pytest.mark.slow
def test_every_named_regime_keeps_the_contract(name):
    assert check_regime(REGIMES[name]) == []


def test_static_and_dynamic_regimes_keep_the_contract():
    assert check_regime(REGIMES["dense"]) == []
    assert check_regime(REGIMES["rigl"]) == []


def rigl(**changes):
    return lambda **settings: dataclasses.replace(REGIMES["rigl"](**settings), **changes)


FAULTS = {
    "called with": (lambda sparsity: topology.static(sparsity), "unexpected keyword argument"),
    "makes": (lambda **settings: settings, "it makes a dict, not a topology.Regime"),
    "fails": (rigl(drop_score=lambda leaf: leaf.weight @ leaf.weight), "drop_score fails: "),
    "shape": (
        rigl(grow_score=lambda leaf: leaf.weight.sum(axis=0)),
        "grow_score returns shape (16,)",
    ),
    "bool": (rigl(grow_score=lambda leaf: leaf.weight > 0), "grow_score returns bool"),
    "NaN": (rigl(grow_score=lambda leaf: jnp.log(leaf.weight - 9.0)), "grow_score is NaN"),
    "after the end": (
        rigl(timing=Timing(interval=5, start=5, end=999), drop=schedules.constant(0.3)),
        "still moves after end=45",
    ),
    "sparsity": (rigl(sparsity=schedules.constant(0.8)), "begins at 0.80 and ends at 0.80"),
    "never": (rigl(drop=schedules.constant(0.0)), "it never moves a weight"),
    "no score": (rigl(grow_score=None), "grow_score fails: TypeError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line(fault):
    make, line = FAULTS[fault]
    found = check_regime(make)
    assert any(line in problem for problem in found), found
    assert not any("\n" in problem for problem in found)


def test_a_regime_itself_can_be_checked():
    assert check_regime(topology.static(0.9)) == []
