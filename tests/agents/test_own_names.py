"""Regimes and agents of a user's own, by dotted names in settings."""

import sys

import pytest
from small_runs import small_config

from mst_jax import agents
from mst_jax.agents import Sizes, make_agent

OWN = """
import jax.numpy as jnp

from mst_jax import topology

def half(*, sparsity, interval, start, end, drop_fraction):
    return topology.static(sparsity / 2)

def whole(**settings):
    raise ValueError("no such\\nthing")

def nothing(**settings):
    return None

def moving(**own):
    def make(*, sparsity, interval, start, end, drop_fraction):
        given = {"sparsity": topology.schedules.constant(sparsity), **own}
        timing = topology.Timing(interval, interval, end)
        drop = topology.schedules.constant(drop_fraction)
        return topology.Regime("mine", timing=timing, drop=drop, **given)
    return make

fine = moving(drop_score=lambda leaf: jnp.abs(leaf.weight * leaf.gradient))
misspelt = moving(drop_score=lambda leaf: leaf.weigth)
per_neuron = moving(grow_score=lambda leaf: leaf.gradient.sum(axis=0))
no_number = moving(sparsity=lambda step: 1 / 0)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own, on the path."""
    (tmp_path / "my_regimes.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_regimes", None)


def plan_of(regime):
    config = small_config("dense", "sac", critic__regime=regime, critic__sparsity=0.8)
    return make_agent("sac", config, Sizes.vector(4, 2), 10_000).plans["critic"]


def test_a_dotted_name_is_a_regime(own):
    (table,) = plan_of("my_regimes:half").tables
    (static,) = plan_of("static").tables
    dense = static.target.sum() / 0.2
    assert table.target.sum() == pytest.approx(0.6 * dense, abs=1)


def test_a_regime_that_rewires_is_traced_and_planned(own):
    assert "mine" in plan_of("my_regimes:fine").names.values()


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        ("my_regimes:hafl", "my_regimes has no 'hafl': did you mean half?"),
        ("my_regime:half", "critic.regime='my_regime:half' is unknown"),
        ("my_pkg.regimes:half", "critic.regime 'my_pkg.regimes:half': there is no module 'my_pkg'"),
        ("my_regimes:whole", "critic.regime=my_regimes:whole: no such; thing"),
        ("my_regimes:nothing", "made a NoneType, not a topology.Regime"),
        ("my_regimes:misspelt", "critic.regime=my_regimes:misspelt fails: AttributeError: 'Leaf'"),
        ("my_regimes:per_neuron", "fails: ValueError: scores have shape ("),
        ("my_regimes:no_number", "fails: ZeroDivisionError: division by zero"),
        ("rgil", "critic.regime='rgil' is unknown: did you mean rigl?"),
    ],
)
def test_what_is_no_regime_is_one_line(own, regime, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        plan_of(regime)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("lambda config: None", "agent 'my_lab.agent': make fails: TypeError: "),
        ("lambda *given: 1 / 0", "make fails: ZeroDivisionError: division by zero"),
        ("lambda *given: None", "make returned a NoneType, not an agents.Agent"),
    ],
)
def test_an_agent_that_cannot_be_made_is_one_line(make, message, tmp_path, monkeypatch):
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "agent.py").write_text(
        f"from mst_jax.agents import SACConfig as Config\nmake = {make}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_lab", "my_lab.agent"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (found,) = agents.check("my_lab.agent")
    assert message in found
    assert "\n" not in found
    with pytest.raises(ValueError, match=message.partition(":")[0]):
        make_agent("my_lab.agent", agents.SACConfig(), Sizes.vector(4, 2), 10_000)
    for name in ("my_lab", "my_lab.agent"):
        sys.modules.pop(name, None)
