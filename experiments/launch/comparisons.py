"""Variants against a study's baseline, and whether the data support a difference."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.studies.base import Labels
from experiments.studies.results import Group, Results, comparable
from mst_jax.analysis import (
    Estimate,
    Paired,
    estimate,
    normalised,
    paired,
    probability_of_improvement,
    seeds_needed,
)

FEWEST_SEEDS = 5  # below, bootstrap intervals are too narrow to support a claim
LEVEL = 0.05


class Comparison(NamedTuple):
    """A variant x against the baseline y, over the tasks and seeds that both have.

    Attributes:
        agent: algorithm.
        variant: name of x.
        tasks: those compared.
        seeds: common seeds of the task that has fewest.
        unit: `return` on a single task, `score` where returns were normalised.
        paired: differences x - y by seed.
        better: probability that a run of x is better than one of y.
        needed: seeds a side that would resolve the measured difference; None if it is zero.
    """

    agent: str
    variant: str
    tasks: tuple[str, ...]
    seeds: int
    unit: str
    paired: Paired
    better: Estimate
    needed: int | None

    def verdict(self, comparisons: int) -> str:
        """What the data support, when this is one of so many comparisons (Bonferroni)."""
        low, high = float(self.paired.difference.low), float(self.paired.difference.high)
        if self.seeds < FEWEST_SEEDS:
            return f"not decidable: {self.seeds} seeds a task are fewer than {FEWEST_SEEDS}"
        if low <= 0.0 <= high:
            return "no difference is supported: the interval contains zero"
        if self.paired.p_value * comparisons > LEVEL:
            return (
                f"no difference is supported: p = {self.paired.p_value:.3g} in {comparisons} "
                "comparisons"
            )
        return f"supported: {'better' if low > 0 else 'worse'} than the baseline"


def compare_all(results: Results, baseline: Labels) -> tuple[list[Comparison], list[str]]:
    """Every variant of every agent against the baseline, and why some cannot be compared."""
    found, impossible = [], []
    for agent in dict.fromkeys(group.agent for group in results.groups):
        own = [group for group in results.groups if group.agent == agent]
        base = {group.task: group for group in own if dict(group.labels) == dict(baseline)}
        if not any(group.final for group in base.values()):
            impossible.append(f"{agent}: the baseline has no results")
            continue
        name = next(iter(base.values())).variant
        for variant in dict.fromkeys(group.variant for group in own if group.variant != name):
            groups = results.named(agent, variant)
            pools = _pools(groups, base)
            found += [_compare(groups, base, pool) for pool in pools]
            if not pools:
                impossible.append(f"{agent} {variant}: no seed in common with the baseline")
    return found, impossible


def _pools(groups: Sequence[Group], base: dict[str, Group]) -> list[dict[str, list[int]]]:
    """{task: common seeds} for each comparison: all tasks in one if they have scores."""
    common = {
        group.task: sorted(group.final.keys() & base[group.task].final.keys())
        for group in groups
        if group.task in base
    }
    common = {task: seeds for task, seeds in common.items() if seeds}
    if common and comparable(common):
        return [common]
    return [{task: seeds} for task, seeds in common.items()]


def _compare(
    groups: Sequence[Group], base: dict[str, Group], common: dict[str, list[int]]
) -> Comparison:
    """A variant's groups against the baseline's on some tasks and seeds."""
    scored = len(common) > 1
    own = {group.task: group for group in groups}

    def runs(side: dict[str, Group], task: str) -> np.ndarray:
        returns = np.array([side[task].final[seed] for seed in common[task]])
        return normalised(task, returns) if scored else returns

    pair = [[runs(side, task) for task in common] for side in (own, base)]
    difference = paired(*pair)
    spread = float(np.mean([np.std(run, ddof=1) for side in pair for run in side if len(run) > 1]))
    value = float(difference.difference.value)
    return Comparison(
        agent=groups[0].agent,
        variant=groups[0].variant,
        tasks=tuple(common),
        seeds=min(map(len, common.values())),
        unit="score" if scored else "return",
        paired=difference,
        better=estimate(probability_of_improvement, *pair),
        needed=seeds_needed(value, spread) if value and np.isfinite(spread) else None,
    )
