"""Variants against a study's baseline, and whether the data support a difference."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.studies.base import Labels
from experiments.studies.results import Results, VariantRuns, comparable
from mst_jax.analysis import (
    Estimate,
    Paired,
    estimate,
    normalised,
    paired,
    probability_of_improvement,
    seeds_needed,
    wins,
    with_worst,
)

FEWEST_SEEDS = 5  # below, bootstrap intervals are too narrow to support a claim
LEVEL = 0.05


class Comparison(NamedTuple):
    """A variant x against the baseline y, over the tasks and seeds of which both have an outcome.

    An outcome is a return, or that the seed diverged. A pair in which one diverged has no
    difference, but counts where runs are only ranked, below every run with a return: else a variant
    would look the better the more of its bad seeds it loses.

    Attributes:
        agent: algorithm.
        variant: name of x.
        tasks: those compared.
        seeds: seeds with a difference of the task that has fewest.
        unit: `return` on a single task, `score` where returns were normalised.
        paired: differences x - y by seed, of the pairs that have one.
        pairs: all pairs.
        diverged: runs of x and of y, among these pairs, that diverged.
        wins: share of all pairs in which x is better, a tie counting half.
        better: probability that a run of x is better than one of y, of all pairs.
        needed: seeds a side that would resolve the measured difference; None if it is zero.
    """

    agent: str
    variant: str
    tasks: tuple[str, ...]
    seeds: int
    unit: str
    paired: Paired
    pairs: int
    diverged: tuple[int, int]
    wins: float
    better: Estimate
    needed: int | None

    def verdict(self, comparisons: int) -> str:
        """What the data support, when this is one of so many comparisons (Bonferroni)."""
        return self._of_differences(comparisons) + self._of_diverged()

    def _of_differences(self, comparisons: int) -> str:
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
        ahead, lost = ("better", self.diverged[0]) if low > 0 else ("worse", self.diverged[1])
        ranked = self.better.low > 0.5 if low > 0 else self.better.high < 0.5
        if lost and not ranked:
            return (
                f"no difference is supported: the pairs left say {ahead}, but with diverged runs "
                "counted as the worst the interval of P(better) contains one half"
            )
        return f"supported: {ahead} than the baseline"

    def _of_diverged(self) -> str:
        if not any(self.diverged):
            return ""
        ours, theirs = self.diverged
        return f" ({ours} of its {self.pairs} runs diverged, and {theirs} of the baseline's)"


def compare_all(results: Results, baseline: Labels) -> tuple[list[Comparison], list[str]]:
    """Every variant of every agent against the baseline, and why some cannot be compared."""
    found, impossible = [], []
    for agent in dict.fromkeys(group.agent for group in results.groups):
        own = [group for group in results.groups if group.agent == agent]
        base = {group.task: group for group in own if dict(group.labels) == dict(baseline)}
        if not any(group.outcomes for group in base.values()):
            impossible.append(f"{agent}: the baseline has no results")
            continue
        name = next(iter(base.values())).variant
        for variant in dict.fromkeys(group.variant for group in own if group.variant != name):
            groups = results.named(agent, variant)
            pools = _pools(groups, base)
            for pool in pools:
                compared = _compare(groups, base, pool)
                if isinstance(compared, str):
                    impossible.append(f"{agent} {variant} on {', '.join(pool)}: {compared}")
                else:
                    found.append(compared)
            if not pools:
                impossible.append(f"{agent} {variant}: no seed in common with the baseline")
    return found, impossible


def _pools(
    groups: Sequence[VariantRuns], base: dict[str, VariantRuns]
) -> list[dict[str, list[int]]]:
    """{task: common seeds} for each comparison: all tasks in one if they have scores."""
    common = {
        group.task: sorted(group.outcomes.keys() & base[group.task].outcomes.keys())
        for group in groups
        if group.task in base
    }
    common = {task: seeds for task, seeds in common.items() if seeds}
    if common and comparable(common):
        return [common]
    return [{task: seeds} for task, seeds in common.items()]


def _compare(
    groups: Sequence[VariantRuns], base: dict[str, VariantRuns], common: dict[str, list[int]]
) -> Comparison | str:
    """A variant's groups against the baseline's on some tasks and seeds, or why that cannot be."""
    scored = len(common) > 1
    own = {group.task: group for group in groups}

    def runs(side: dict[str, VariantRuns], task: str) -> np.ndarray:
        returns = np.array([side[task].outcomes[seed] for seed in common[task]])
        return normalised(task, returns) if scored else returns

    everything = [[runs(side, task) for task in common] for side in (own, base)]
    whole = [np.isfinite(ours + theirs) for ours, theirs in zip(*everything, strict=True)]
    pair = [
        [run[kept] for run, kept in zip(side, whole, strict=True) if kept.any()]
        for side in everything
    ]
    pairs = sum(map(len, whole))
    ours, theirs = (int(sum(np.isnan(run).sum() for run in side)) for side in everything)
    if not pair[0]:
        return f"no pair is left: {ours} of {pairs} runs diverged, and {theirs} of the baseline's"
    difference = paired(*pair)
    ranked = with_worst(*everything)
    spreads = [np.std(run, ddof=1) for side in pair for run in side if len(run) > 1]
    spread = float(np.mean(spreads)) if spreads else np.nan
    value = float(difference.difference.value)
    return Comparison(
        agent=groups[0].agent,
        variant=groups[0].variant,
        tasks=tuple(common),
        seeds=int(min(kept.sum() for kept in whole)),
        unit="score" if scored else "return",
        paired=difference,
        pairs=pairs,
        diverged=(ours, theirs),
        wins=wins(*ranked),
        better=estimate(probability_of_improvement, *ranked),
        needed=seeds_needed(value, spread) if value and np.isfinite(spread) else None,
    )
