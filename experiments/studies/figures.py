"""The figures of studies: every panel is one task and agent, and says which variants it lacks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.studies.published import STEPS, published_points
from experiments.studies.results import Results, VariantRuns
from mst_jax.analysis import Estimate, estimate, mean
from mst_jax.figures.curves import draw_ends, draw_mean
from mst_jax.figures.style import PALETTE, plain

Draw = Callable[[Axes, Sequence[VariantRuns]], None]
StudyFigure = Callable[[Results], Figure]


def against_size(results: Results) -> Figure:
    """Return against the parameters, dense and sparse; a sparse network has its active ones too."""
    return _panels(results, _draw_size, "parameters (hollow: active ones)")


def against_sparsity(results: Results) -> Figure:
    """Return against sparsity, one line for each network."""
    return _panels(results, _draw_sparsity, "sparsity of both networks")


def bars(x: str, colour: str | None, panel: str | None = None) -> StudyFigure:
    """A figure of bars: one place for each value of a label, one colour for each of another.

    Args:
        x: label along the axis.
        colour: label of the bars side by side; None for one bar a place.
        panel: label with a panel for each of its values.
    """

    def draw(results: Results) -> Figure:
        values = [group.labels[panel] for group in results.groups] if panel else [None]
        return _panels(
            results,
            lambda axis, groups: _draw_bars(axis, groups, x, colour),
            x,
            [(panel, value) for value in dict.fromkeys(values)],
        )

    return draw


def learning_curves(results: Results, x: str = "step", label: str = "") -> Figure:
    """Return against steps, operations or seconds: means over seeds with 95 % intervals.

    A line is dotted where it is not of all seeds; a cross is the last return of a diverged one.
    """
    return _panels(
        results,
        lambda axis, groups: _draw_curves(axis, groups, x),
        label or "agent steps",
        can_draw=lambda group: group.rows,
    )


def interval(values: np.ndarray) -> Estimate:
    """Mean of runs (S,) with its bootstrap interval."""
    return estimate(mean, [values])


def _panels(
    results: Results,
    draw: Draw,
    xlabel: str,
    splits: Sequence[tuple[str | None, object]] = ((None, None),),
    can_draw: Callable[[VariantRuns], object] = lambda group: group.final,
) -> Figure:
    """A row for each task and agent, a column for each value of the label that splits it."""
    pairs = results.panels
    figure = Figure(figsize=(5.6 * len(splits), 3.8 * len(pairs)), layout="constrained")
    axes = figure.subplots(len(pairs), len(splits), squeeze=False)
    for row, (task, agent) in zip(axes, pairs, strict=True):
        for axis, (name, value) in zip(row, splits, strict=True):
            groups = [
                group
                for group in results.panel(task, agent)
                if name is None or group.labels[name] == value
            ]
            present = [group for group in groups if can_draw(group)]
            if present:
                draw(axis, present)
            title = f"{task}, {agent}" + ("" if name is None else f", {name} {value}")
            axis.set(title=plain(title), xlabel=xlabel, ylabel="evaluation return")
            axis.spines[["top", "right"]].set_visible(False)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize=7, framealpha=0.7, edgecolor="none")
            name_missing(axis, groups)
    return figure


def name_missing(axis: Axes, groups: Sequence[VariantRuns]) -> None:
    """Writes which variants have no, or not all, of their seeds."""
    lines = [f"{group.variant}: {group.count}" for group in groups if group.missing]
    if lines:
        shown = lines[:8] + ([f"and {len(lines) - 8} more"] if len(lines) > 8 else [])
        text = "MISSING\n" + "\n".join(shown)
        box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none"}
        place: dict[str, Any] = {"transform": axis.transAxes, "ha": "right", "bbox": box}
        axis.text(0.98, 0.02, plain(text), fontsize=6, color="0.25", **place)


def _draw_size(axis: Axes, groups: Sequence[VariantRuns]) -> None:
    for index, kind in enumerate(dict.fromkeys(group.labels["kind"] for group in groups)):
        own = sorted(
            (g for g in groups if g.labels["kind"] == kind), key=lambda g: g.column("parameters")
        )
        found = [interval(group.returns) for group in own]
        style = {"color": PALETTE[index], "label": plain(kind)}
        for column, filled in (("parameters", True), ("active_parameters", False)):
            xs = [group.column(column) for group in own]
            if filled:
                _errorbar(axis, xs, found, marker="o", **style)
                mark_diverged(axis, xs, found, own)
            elif kind != "dense":
                axis.plot(xs, [f.value for f in found], "o", mfc="none", color=PALETTE[index])
        _draw_published(axis, own, lambda group: group.column("parameters"), PALETTE[index])
    axis.set_xscale("log")


def _draw_sparsity(axis: Axes, groups: Sequence[VariantRuns]) -> None:
    for index, network in enumerate(dict.fromkeys(group.labels["network"] for group in groups)):
        own = [group for group in groups if group.labels["network"] == network]
        xs = [float(group.labels["sparsity"]) for group in own]
        found = [interval(group.returns) for group in own]
        _errorbar(axis, xs, found, marker="o", color=PALETTE[index], label=plain(network))
        mark_diverged(axis, xs, found, own)
        sparsity = lambda group: float(group.labels["sparsity"])  # noqa: E731
        _draw_published(axis, own, sparsity, PALETTE[index])


def _draw_published(
    axis: Axes, groups: Sequence[VariantRuns], x: Callable[[VariantRuns], float], colour: str
) -> None:
    """Crosses where the paper has a number for the same task, agent, variant and steps."""
    points = [
        (x(group), published_points(group.task, group.agent, group.labels))
        for group in groups
        if max(row["step"] for row in group.rows) == STEPS
    ]
    known = [(at, value) for at, value in points if value is not None]
    if known:
        axis.plot(*zip(*known, strict=True), "x", color=colour, label="published mean")


def _draw_bars(axis: Axes, groups: Sequence[VariantRuns], x: str, colour: str | None) -> None:
    places = list(dict.fromkeys(group.labels[x] for group in groups))
    colours = list(dict.fromkeys(group.labels[colour] if colour else None for group in groups))
    width = 0.8 / len(colours)
    for index, value in enumerate(colours):
        own = [group for group in groups if not colour or group.labels[colour] == value]
        at = [places.index(g.labels[x]) + (index - (len(colours) - 1) / 2) * width for g in own]
        found = [interval(group.returns) for group in own]
        paint = PALETTE[index % len(PALETTE)]
        label = None if value is None else plain(value)
        axis.bar(at, [f.value for f in found], width * 0.92, color=paint, alpha=0.6, label=label)
        _errorbar(axis, at, found, fmt="none", color="0.2")
        mark_diverged(axis, at, found, own)
        for place, group in zip(at, own, strict=True):
            axis.plot(np.full(len(group.returns), place), group.returns, ".", ms=3, color="0.1")
    axis.set_xticks(range(len(places)), [plain(place) for place in places], rotation=20)


def _draw_curves(axis: Axes, groups: Sequence[VariantRuns], x: str) -> None:
    crossed = [group for group in groups if group.diverged][:1]  # one of them is explained
    for index, group in enumerate(groups):
        xs, returns = group.curve(x)
        color = PALETTE[index % len(PALETTE)]
        style = ("-", "--", "-.")[index // len(PALETTE) % 3]
        seeds = sorted({row["seed"] for row in group.rows})
        diverged = np.array([seed in group.diverged for seed in seeds])
        count = group.count if group.missing else f"{len(returns)} seeds"
        label = plain(f"{group.variant} ({count})")
        draw_mean(axis, xs, returns, style, color=color, label=label)
        label = "last return of a diverged seed" if group in crossed else None
        draw_ends(axis, xs, returns[diverged], color=color, label=label)


def mark_diverged(
    axis: Axes, xs: Sequence[float], found: Sequence[Estimate], groups: Sequence[VariantRuns]
) -> None:
    """Writes beside a mean how many seeds are not in it because they diverged."""
    for x, mean_of_rest, group in zip(xs, found, groups, strict=True):
        note_diverged(axis, (x, float(mean_of_rest.value)), group)


def note_diverged(axis: Axes, place: tuple[float, float], group: VariantRuns) -> None:
    """Writes at a place how many of a group's seeds diverged, if any."""
    if group.diverged:
        text = f"{len(group.diverged)} diverged"
        axis.annotate(text, place, (3, 3), textcoords="offset points", fontsize=6)


def _errorbar(axis: Axes, xs: Sequence[float], found: Sequence[Estimate], **style: Any) -> None:
    values = np.array([f.value for f in found])
    errors = np.abs(np.array([[f.low for f in found], [f.high for f in found]]) - values)
    axis.errorbar(xs, values, errors, capsize=3, **style)
