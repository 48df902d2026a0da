"""Regimes of a user's own, by dotted names in a module's settings."""

import sys

import pytest
from small_runs import small_config

from mst_jax.agents import Sizes, make_agent

OWN = """
from mst_jax import topology

def half(*, sparsity, interval, start, end, drop_fraction):
    return topology.static(sparsity / 2)

def whole(**settings):
    raise ValueError("no such\\nthing")

def nothing(**settings):
    return None
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


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        ("my_regimes:hafl", "my_regimes has no 'hafl': did you mean half?"),
        ("my_regime:half", "critic.regime='my_regime:half' is unknown"),
        ("my_pkg.regimes:half", "critic.regime 'my_pkg.regimes:half': there is no module 'my_pkg'"),
        ("my_regimes:whole", "critic.regime=my_regimes:whole: no such; thing"),
        ("my_regimes:nothing", "made a NoneType, not a topology.Regime"),
        ("rgil", "critic.regime='rgil' is unknown: did you mean rigl?"),
    ],
)
def test_what_is_no_regime_is_one_line(own, regime, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        plan_of(regime)
    assert message in str(caught.value)
