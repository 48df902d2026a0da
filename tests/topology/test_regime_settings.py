"""What a regime reads of a module's settings changes its plan; the rest is told to be idle."""

import jax
import numpy as np
import pytest

from mst_jax import topology
from mst_jax.agents import default_config, idle_settings
from mst_jax.recipes import make_config, override

SHAPES = {"a": np.zeros((20, 10)), "b": np.zeros((10, 10)), "c": np.zeros((10, 4))}
BASE = {"sparsity": 0.6, "interval": 10, "start": 20, "end": 90, "drop_fraction": 0.3}
OTHER = {"sparsity": 0.7, "interval": 15, "start": 40, "end": 70, "drop_fraction": 0.1}


def rewires(name, settings):
    """When a regime's plan rewires, and its counts."""
    plan = topology.plan(SHAPES, {".*": topology.REGIMES[name](**settings)})
    return [
        (group.entries[0].regime.timing, *map(np.asarray, jax.tree.leaves(group.table)))
        for group in plan.groups
    ]


def alike(one, other):
    return len(one) == len(other) and all(
        timing == other_timing
        and all(np.array_equal(x, y) for x, y in zip(tables, others, strict=True))
        for (timing, *tables), (other_timing, *others) in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", topology.REGIMES)
def test_a_regime_reads_what_changes_its_plan_and_nothing_else(name):
    base = rewires(name, BASE)
    changing = {
        key for key, value in OTHER.items() if not alike(base, rewires(name, {**BASE, key: value}))
    }
    assert changing == {*topology.REGIMES[name].reads}


def test_what_a_regime_does_not_read_is_told():
    config = override(make_config("mrq", "mst"), {"actor.drop_fraction": 0.5})
    given = ["actor.drop_fraction", "critic.drop_fraction", "encoder.interval", "actor.hidden"]
    assert idle_settings(config, [*given, "batch_size", "critic.start_fraction"]) == [
        "actor.drop_fraction has no effect with actor.regime=static",
        "encoder.interval has no effect with encoder.regime=dense",
        "critic.start_fraction has no effect with critic.regime=rigl",
    ]
    own = override(default_config("sac"), {"critic.regime": "my.regimes.mine"})
    assert idle_settings(own, ["critic.drop_fraction"]) == []
