"""The rule of the study structure_cost: its intervals, its verdicts, and when there is none."""

import numpy as np
import pytest
from scipy import stats

from experiments.studies.results import Results, VariantRuns
from experiments.studies.structures import (
    AGENT,
    KINDS,
    LEVEL,
    MARGIN,
    STEPS,
    TASK,
    difference,
    registered_report,
)


def group(structure, sparsity, returns, steps=STEPS):
    labels = {"network": "1x1", "structure": structure, "sparsity": sparsity}
    rows = [
        {"task": TASK, "run": structure, "seed": seed, "step": steps, "return": value}
        for seed, value in enumerate(returns)
    ]
    rows = [{**row, "diverged": None} for row in rows]
    return VariantRuns(TASK, AGENT, structure, labels, list(range(len(returns))), rows)


def test_intervals_are_welch_s():
    own, other = np.array([800.0, 810, 790, 801]), np.array([700.0, 905, 640, 850])
    found = difference(own, other)
    wanted = stats.ttest_ind(own, other, equal_var=False).confidence_interval(LEVEL)
    assert found.value == pytest.approx(own.mean() - other.mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [
        (0, 10, "not inferior"),
        (-MARGIN + 40, 5, "not inferior"),
        (-MARGIN, 5, "undecided"),
        (0, 100, "undecided"),
        (-MARGIN - 40, 5, "inferior"),
    ],
)
def test_a_verdict_says_on_which_side_of_the_margin_the_interval_lies(shift, spread, verdict):
    around = 700 + spread * np.array([-1.0, 1, -1, 1])
    assert difference(around + shift, around).verdict == verdict


@pytest.mark.parametrize(
    ("seeds", "steps"), [(4, STEPS), (3, STEPS), (4, 2 * STEPS), (4, STEPS // 2)]
)
def test_only_the_registered_runs_have_a_verdict(seeds, steps):
    returns = [700.0, 710, 690, 705][:seeds]
    report = registered_report(Results([group(*kind, returns, steps) for kind in KINDS], {}))
    lines = {line.split("|")[2].strip(): line for line in report.splitlines() if "1x1 |" in line}
    as_registered = (seeds, steps) == (4, STEPS)
    assert ("not inferior" in lines["shared64"]) == as_registered
    assert ("Not what was registered" in report) != as_registered
    assert lines["dense"].count("| - |") >= 1
