"""What a study's runs found, grouped by variant, with what is missing."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments.studies.base import Labels
from mst_jax.analysis import Row, TrainingReturns, last_rows, normalised, score_range
from mst_jax.runs.health import describe_diverged


@dataclass
class VariantRuns:
    """All seeds of one variant of one agent on one task.

    Attributes:
        task: full name.
        agent: algorithm.
        variant: name of the variant.
        labels: the study's factors with this variant's values.
        planned: seeds that the plan has.
        rows: every evaluation of every finished seed.
        training: returns of training's own episodes, one entry for each finished block of seeds.
    """

    task: str
    agent: str
    variant: str
    labels: Labels
    planned: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    training: list[TrainingReturns] = field(default_factory=list)

    @property
    def final(self) -> dict[int, float]:
        """Seed -> return of its last evaluation, of those that have one."""
        last = {row["seed"]: float(row["return"]) for row in last_rows(self.rows)}
        return {seed: value for seed, value in last.items() if np.isfinite(value)}

    @property
    def diverged(self) -> dict[int, int]:
        """Seed -> the step by which it had diverged, of those that did."""
        last = sorted(last_rows(self.rows), key=lambda row: row["seed"])
        return {row["seed"]: row["diverged"] for row in last if row["diverged"] is not None}

    @property
    def outcomes(self) -> dict[int, float]:
        """Seed -> final return, or NaN where it diverged; others have no outcome."""
        return {**self.final, **dict.fromkeys(self.diverged, np.nan)}

    @property
    def returns(self) -> np.ndarray:
        """Final returns in the order of the seeds, (S,)."""
        final = self.final
        return np.array([final[seed] for seed in sorted(final)])

    @property
    def missing(self) -> list[int]:
        """Planned seeds without a final return."""
        return [seed for seed in self.planned if seed not in self.final]

    @property
    def count(self) -> str:
        """How many seeds have a final return, of how many, and how many of the others diverged."""
        lost = f", {len(self.diverged)} diverged" if self.diverged else ""
        return f"{len(self.planned) - len(self.missing)} of {len(self.planned)} seeds{lost}"

    def column(self, name: str) -> Any:
        """A column that all rows share, such as `parameters`; None without rows."""
        return self.rows[0][name] if self.rows else None

    def curve(self, x: str) -> tuple[np.ndarray, np.ndarray]:
        """(T,) mean of a column and (S, T) returns over the evaluations that all seeds have.

        Returns are NaN from where a seed diverged. The seeds are in order.
        """
        by_step: dict[int, dict[int, Row]] = {}
        for row in self.rows:
            by_step.setdefault(row["step"], {})[row["seed"]] = row
        seeds = {row["seed"] for row in self.rows}
        steps = [step for step in sorted(by_step) if by_step[step].keys() == seeds]
        xs = np.array([np.mean([row[x] for row in by_step[step].values()]) for step in steps])
        values = [[by_step[step][seed]["return"] for step in steps] for seed in sorted(seeds)]
        return xs, np.array(values, float).reshape(len(seeds), len(steps))


@dataclass
class Results:
    """A study's groups in the order of its plan.

    Attributes:
        groups: one for each task, agent and variant.
        problems: cell name -> why its results could not be read.
    """

    groups: list[VariantRuns]
    problems: dict[str, str]

    @property
    def rows(self) -> list[Row]:
        """The tidy table: every row, with the labels as columns `label.NAME`."""
        return [
            {**row, **{f"label.{name}": value for name, value in group.labels.items()}}
            for group in self.groups
            for row in group.rows
        ]

    @property
    def panels(self) -> list[tuple[str, str]]:
        """Pairs of task and agent, in order."""
        return list(dict.fromkeys((group.task, group.agent) for group in self.groups))

    def panel(self, task: str, agent: str) -> list[VariantRuns]:
        """The groups of one task and agent."""
        return [group for group in self.groups if (group.task, group.agent) == (task, agent)]

    def named(self, agent: str, variant: str) -> list[VariantRuns]:
        """One variant of an agent on all its tasks."""
        return [group for group in self.groups if (group.agent, group.variant) == (agent, variant)]

    @property
    def over_tasks(self) -> list[list[VariantRuns]]:
        """The groups of each agent's variant that may be averaged over tasks.

        Those are several tasks with scores, and each group has outcomes.
        """
        pairs = dict.fromkeys((group.agent, group.variant) for group in self.groups)
        found = [self.named(*pair) for pair in pairs]
        return [
            groups
            for groups in found
            if len(groups) > 1
            and comparable(group.task for group in groups)
            and all(group.outcomes for group in groups)
        ]

    @property
    def missing(self) -> list[str]:
        """One line for each group that lacks seeds: which, and the steps by which they diverged."""
        return [
            f"{group.task} {group.agent} {group.variant}: {_why_missing(group)}"
            for group in self.groups
            if group.missing
        ]


def _why_missing(group: VariantRuns) -> str:
    """The missing seeds of a group: those that diverged, have no return, or are not finished."""
    there = {row["seed"] for row in group.rows}
    others = [seed for seed in group.missing if seed not in group.diverged]
    broken = [str(seed) for seed in others if seed in there]
    absent = [str(seed) for seed in others if seed not in there]
    parts = [describe_diverged(group.diverged)] if group.diverged else []
    parts += [f"no return in the last evaluation of seeds {', '.join(broken)}"] if broken else []
    parts += [f"seeds {', '.join(absent)}"] if absent else []
    return "; ".join(parts)


def scores(groups: Iterable[VariantRuns]) -> list[np.ndarray]:
    """Final returns of each group as scores, as statistics over tasks take them."""
    return [normalised(group.task, group.returns) for group in groups]


def comparable(tasks: Iterable[str]) -> bool:
    """Whether all tasks have scores; returns of others must not be averaged over tasks."""
    return all(score_range(task) is not None for task in tasks)
