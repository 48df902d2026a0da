"""Topologies at the prompt and in notebooks: by hand."""

import xml.etree.ElementTree as ET

import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax import topology

PARAMS = {"k": jnp.ones((2, 2)), "b": jnp.ones(2)}
MASKS = {"k": jnp.array([[True, False], [False, False]]), "b": topology.DenseLeaf()}


def cells(shown):
    """Rows of the HTML, header first."""
    table = ET.fromstring(shown._repr_html_())
    return [[cell.text or "" for cell in row] for row in table.iter("tr")]


def test_the_summary_is_text_at_the_prompt_and_html_in_a_notebook():
    summary = topology.summary(PARAMS, MASKS)
    assert repr(summary) == str(summary)
    assert str(summary).splitlines()[-1].split() == ["total", "0.5000", "3", "6"]
    assert cells(summary) == [
        ["leaf", "shape", "density", "non-zeros", "parameters"],
        ["b", "(2,)", "dense", "2", "2"],
        ["k", "(2, 2)", "0.2500", "1", "4"],
        ["total", "", "0.5000", "3", "6"],
    ]


def test_names_are_escaped_in_html():
    summary = topology.summary({"<a&b>": jnp.ones(1)}, {"<a&b>": topology.DenseLeaf()})
    assert cells(summary)[1][0] == "<a&b>"
    assert "<a&b>" not in summary._repr_html_()


def test_a_plan_is_a_table_in_a_notebook():
    plan = topology.plan(PARAMS, {"k": topology.static(0.5)})
    assert cells(plan)[1:] == [
        ["b", "(2,)", "dense", "1.0000", "2"],
        ["k", "(2, 2)", "static", "0.5000", "2"],
        ["total", "", "", "0.6667", "4"],
    ]
    assert str(plan).splitlines()[0].split() == cells(plan)[0]


def test_a_difference_counts_what_stayed_went_and_came():
    before = {"k": jnp.array([1, 1, 1, 0, 0, 0], bool), "b": topology.DenseLeaf()}
    after = {"k": jnp.array([1, 1, 0, 1, 0, 0], bool), "b": topology.DenseLeaf()}
    difference = topology.diff(before, after)
    assert difference == {"k": (2, 1, 1)}
    assert difference["k"].dropped == 1
    assert cells(difference) == [
        ["leaf", "kept", "dropped", "grown", "survived"],
        ["k", "2", "1", "1", "66.7%"],
        ["total", "2", "1", "1", "66.7%"],
    ]
    assert repr(difference) == str(difference)
    assert "66.7%" in str(difference)


def test_seeds_are_counted_together_and_a_dense_leaf_is_all_active():
    rng = np.random.default_rng(0)
    before, after = rng.random((2, 3, 4, 5)) < 0.4
    both = topology.diff({"k": before}, {"k": after})["k"]
    each = [topology.diff({"k": b}, {"k": a})["k"] for b, a in zip(before, after, strict=True)]
    assert both == tuple(sum(column) for column in zip(*each, strict=True))
    grown = topology.diff({"k": before}, {"k": topology.DenseLeaf()})["k"]
    assert grown == (before.sum(), 0, (~before).sum())


def test_degenerate_differences():
    assert topology.diff({"b": topology.DenseLeaf()}, {"b": topology.DenseLeaf()}) == {}
    assert "total" in str(topology.diff({}, {}))
    empty = {"k": np.zeros((2, 2), bool)}
    assert cells(topology.diff(empty, empty))[1] == ["k", "0", "0", "0", "-"]


def test_strangers_are_refused():
    with pytest.raises(ValueError, match="different leaves, for example 'b'"):
        topology.diff(MASKS, {"k": MASKS["k"]})
    with pytest.raises(ValueError, match=r"'k' has shape \(2, 2\) before and \(4, 2\) after"):
        topology.diff(MASKS, {"k": np.ones((4, 2), bool), "b": topology.DenseLeaf()})


def test_ipython_shows_html_for_each_of_them():
    """IPython decides by type before it looks for a method; a string would stay text."""
    formatters = pytest.importorskip("IPython.core.formatters")
    show = formatters.HTMLFormatter()
    plan = topology.plan(PARAMS, {"k": topology.static(0.5)})
    for shown in (topology.summary(PARAMS, MASKS), topology.diff(MASKS, MASKS), plan):
        assert show(shown) == shown._repr_html_()
