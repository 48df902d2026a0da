"""Figures over many tasks: aggregates of scores, and each task's change against a baseline."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.studies.base import Labels
from experiments.studies.figures import name_missing, note_diverged
from experiments.studies.results import Results, VariantRuns, scores
from mst_jax.analysis import Estimate, estimate, iqm, mean, meaning, optimality_gap
from mst_jax.figures.style import PALETTE, plain

ROW = 0.3  # inches of a row
TICKS = (-1000, -300, -100, -50, 0, 50, 100, 200, 500, 1000, 3000)  # percent
Change = Callable[[str, Labels], float | None]  # task, labels -> percent, None where there is none


def over_tasks(results: Results) -> Figure:
    """IQM, mean and optimality gap of normalised scores, a row for each agent's variant."""
    rows = [groups for groups in results.over_tasks if all(group.final for group in groups)]
    columns = {"IQM": iqm, "mean": mean, "optimality gap (less is better)": optimality_gap}
    figure = Figure(figsize=(11.0, ROW * len(rows) + 1.6), layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True)
    for axis, (name, estimator) in zip(axes, columns.items(), strict=True):
        found = [estimate(estimator, scores(groups)) for groups in rows]
        _intervals(axis, range(len(rows)), found, fmt="o", color=PALETTE[0])
        axis.set_title(name, fontsize=9)
    names = [f"{groups[0].agent} {groups[0].variant}" for groups in rows]
    axes[0].set_yticks(range(len(rows)), [plain(name) for name in names])
    axes[0].invert_yaxis()
    tasks = [group.task for groups in rows for group in groups]
    told = "; ".join(dict.fromkeys(map(meaning, tasks)))
    figure.suptitle(plain(f"{len(set(tasks))} tasks; {told}"), fontsize=9)
    return figure


def changes(baseline: Labels, published: Change) -> Callable[[Results], Figure]:
    """A figure of each task's change of the mean return against a variant, in percent.

    Args:
        baseline: labels of that variant.
        published: what was published of the same, drawn as crosses.
    """

    def draw(results: Results) -> Figure:
        agents = list(dict.fromkeys(group.agent for group in results.groups))
        tasks = list(dict.fromkeys(group.task for group in results.groups))
        others = dict.fromkeys(
            group.variant for group in results.groups if dict(group.labels) != dict(baseline)
        )
        height = ROW * len(tasks) * max(1.0, 0.4 * len(others)) + 1.8
        figure = Figure(figsize=(8.0 * len(agents), height), layout="constrained")
        axes = figure.subplots(1, len(agents), squeeze=False)[0]
        for axis, agent in zip(axes, agents, strict=True):
            own = [group for group in results.groups if group.agent == agent]
            _draw_changes(axis, own, tasks, list(others), baseline, published)
            axis.set_title(plain(agent))
            name_missing(axis, own)
        return figure

    return draw


def change(group: VariantRuns, base: VariantRuns) -> Estimate | None:
    """Percent by which a mean return is above another's; None without returns, or for 0."""
    if not group.final or not base.final or base.returns.mean() == 0:
        return None
    return estimate(_percent, [group.returns], [base.returns])


def _percent(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> np.ndarray:
    before = mean(y)
    with np.errstate(divide="ignore", invalid="ignore"):  # resamples of both signs
        return 100.0 * (mean(x) - before) / np.abs(before)


def _draw_changes(
    axis: Axes,
    groups: Sequence[VariantRuns],
    tasks: Sequence[str],
    others: Sequence[str],
    baseline: Labels,
    published: Change,
) -> None:
    base = {group.task: group for group in groups if dict(group.labels) == dict(baseline)}
    by_name = {(group.task, group.variant): group for group in groups}
    for index, variant in enumerate(others):
        offset = (index - (len(others) - 1) / 2) * 0.8 / len(others)
        own = {task: by_name[task, variant] for task in tasks if (task, variant) in by_name}
        rows = {task: tasks.index(task) + offset for task in own}
        style: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)], "markersize": 4}
        found = {
            task: one
            for task, group in own.items()
            if task in base and (one := change(group, base[task])) is not None
        }
        at = [rows[task] for task in found]
        _intervals(axis, at, list(found.values()), fmt="o", label=plain(variant), **style)
        for task, group in own.items():
            place = float(found[task].value) if task in found else 0.0
            note_diverged(axis, (place, rows[task]), group)
        known = {task: published(task, group.labels) for task, group in own.items()}
        points = [(value, rows[task]) for task, value in known.items() if value is not None]
        if points:
            label = plain(f"{variant}, published")
            values, places = zip(*points, strict=True)
            axis.plot(values, places, "x", label=label, **style)
    axis.axvline(0.0, color="0.6", linewidth=0.8)
    axis.set_xscale("symlog", linthresh=100.0)
    low, high = axis.get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    axis.set_yticks(range(len(tasks)), [plain(task.partition(":")[2] or task) for task in tasks])
    axis.set_ylim(len(tasks) - 0.5, -0.5)
    name = ", ".join(f"{key} {value}" for key, value in baseline.items())
    axis.set_xlabel(plain(f"mean return against {name}, percent (95 % intervals)"))
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7, framealpha=0.7, edgecolor="none")


def _intervals(axis: Axes, at: Sequence[float], found: Sequence[Estimate], **style: Any) -> None:
    """Points along the horizontal axis with their intervals, where those are finite."""
    values = np.array([f.value for f in found])
    errors = np.abs(np.array([[f.low for f in found], [f.high for f in found]]) - values)
    errors = np.where(np.isfinite(errors), errors, 0.0)
    axis.errorbar(values, at, xerr=errors, capsize=2, **style)
