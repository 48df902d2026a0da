"""One notion of health: on the device, and in the rows of any version."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mst_jax.program.health import finite
from mst_jax.program.step import still_healthy
from mst_jax.runs.health import describe_diverged, diverged_by, healthy_at, mean_of_known, return_of


@struct.dataclass
class State:
    """Of two seeds: parameters, statistics that acting reads, and what neither reads."""

    params: dict
    statistics: dict
    moments: jax.Array


AGENT = SimpleNamespace(
    parameters=lambda state: {"actor": state.params}, acting=("params", "statistics")
)


def state(**changes):
    values = {
        "params": {"kernel": jnp.ones((3, 2, 2)), "steps": jnp.zeros(3, jnp.int32)},
        "statistics": {"mean": jnp.zeros((3, 4)), "key": jax.random.split(jax.random.key(0), 3)},
        "moments": jnp.full((3, 2), jnp.nan),
    }
    return State(**{**values, **changes})


def test_a_seed_is_finite_where_its_parameters_and_all_that_acting_reads_are():
    """Fault A4: statistics that are not finite make actions NaN as parameters do."""
    assert finite(AGENT, state()).tolist() == [True, True, True]
    kernel = jnp.ones((3, 2, 2)).at[1, 0, 1].set(jnp.nan)
    assert finite(AGENT, state(params={"kernel": kernel})).tolist() == [True, False, True]
    mean = jnp.zeros((3, 4)).at[2, 3].set(jnp.inf)
    assert finite(AGENT, state(statistics={"mean": mean})).tolist() == [True, True, False]


def test_health_never_comes_back():
    run = SimpleNamespace(healthy=jnp.array([True, False, True]), agent=state())
    assert still_healthy(AGENT, run).tolist() == [True, False, True]


def rows_of(*rows):
    """Rows from triples: kind, step and healthy; NEW marks evaluations that were checked."""
    return [
        {"kind": kind.removeprefix("new "), "step": step, "healthy": healthy, "return": 1.0}
        | ({"episodes": 1} if kind.startswith("new ") else {})
        for kind, step, healthy in rows
    ]


@pytest.mark.parametrize(
    ("rows", "diverged"),
    [
        ([("eval", 0, True), ("train", 40, True), ("eval", 50, True)], None),
        ([("new eval", 50, True), ("new eval", 100, False), ("train", 200, False)], 100),
        # Checked at every evaluation, so that of step 50 was of a finite policy.
        ([("new eval", 50, True), ("train", 200, False)], 200),
        # Older versions: false, and a finite return all the same.
        ([("eval", 0, True), ("train", 100, False), ("eval", 100, False)], 100),
        # Older versions checked at train rows only: nobody knows of the evaluation at step 50 ...
        ([("eval", 0, True), ("eval", 50, True), ("eval", 100, True), ("train", 200, False)], 50),
        ([("train", 40, True), ("eval", 50, True), ("train", 80, True)], None),
        # ... but one at the step of a healthy train row repeats what that found.
        ([("train", 40, True), ("eval", 40, True), ("eval", 50, True), ("train", 80, False)], 50),
        ([("train", 40, True), ("eval", 40, True), ("train", 80, False)], 80),
        ([("eval", 0, True), ("diagnostics", 60, True), ("final", 80, False)], 80),
        ([], None),
    ],
)
def test_the_step_by_which_a_seed_had_diverged(rows, diverged):
    """Faults A1 and A4, in the rows of this version and of older ones."""
    rows = rows_of(*rows)
    assert diverged_by(rows) == diverged
    for row in rows:
        well = diverged is None or row["step"] < diverged
        assert healthy_at(row["step"], diverged) == well
        assert np.isfinite(return_of(row, diverged)) == well


def test_a_healthy_row_without_a_return_has_none():
    assert np.isnan(return_of({"step": 5, "return": None}, None))


def test_means_are_over_what_is_known():
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(mean_of_known(values), [2.0, np.nan])
    np.testing.assert_array_equal(mean_of_known(values, axis=0), [1.0, np.nan, 3.0])
    assert isinstance(mean_of_known(values[0]), float)


def test_diverged_seeds_in_words():
    told = describe_diverged({1: 2_000, 3: 40})
    assert told == "seed 1 diverged by step 2,000, seed 3 diverged by step 40"
