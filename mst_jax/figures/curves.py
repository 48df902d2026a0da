"""Learning curves as a figure with every seed in it."""

from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mst_jax.analysis.curves import Curve, Published, interval_over_seeds
from mst_jax.figures.style import PALETTE, plain
from mst_jax.runs.health import describe_diverged, mean_of_known


def draw_curves(curves: Sequence[Curve], published: Sequence[Published] = ()) -> Figure:
    """Draws each run's seeds, their mean in bold and its interval; one panel for each task.

    Args:
        curves: of runs.
        published: of papers; those of the same tasks are drawn beside, as points with one standard
            deviation, up to where ours end. Where an agent step has another number of frames than
            theirs, a point stands at as many frames.

    Returns:
        The figure, not saved.
    """
    names = sorted({curve.task for curve in curves})
    figure = Figure(figsize=(5.2 * len(names), 3.6), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)
    for axis, task in zip(axes[0], names, strict=True):
        for index, curve in enumerate(c for c in curves if c.task == task):
            _draw(axis, curve, PALETTE[index % len(PALETTE)])
        end = max(curve.steps[-1] for curve in curves if curve.task == task)
        frames = {curve.frames for curve in curves if curve.task == task}
        for other in (p for p in published if p.task == task):
            _draw_published(axis, other, end, frames)
        axis.set(title=plain(task), xlabel=steps_label(frames), ylabel="evaluation return")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    return figure


def steps_label(frames: Set[int | None]) -> str:
    """What to write along an axis of agent steps: with how many frames each is, if all agree."""
    known = next(iter(frames), None) if len(frames) == 1 else None
    return "agent steps" if known is None else f"agent steps ({frames_of(known)})"


def frames_of(count: int) -> str:
    """`a frame each` or `2 frames each`."""
    return "a frame each" if count == 1 else f"{count} frames each"


def _draw_published(axis: Axes, other: Published, end: int, frames: Set[int | None]) -> None:
    """Draws a published curve up to step `end` of agent steps with so many frames."""
    known = next(iter(frames)) if len(frames) == 1 else None
    steps = other.steps if known is None else other.steps * other.frames / known
    seen, label = steps <= end, "published, mean and sd"
    if known not in (None, other.frames):
        label += f", steps of {frames_of(other.frames)}"
    points = (steps[seen], other.mean[seen], other.std[seen])
    axis.errorbar(*points, fmt="s", color="0.3", capsize=3, label=label)


def _draw(axis: Axes, curve: Curve, colour: str) -> None:
    axis.plot(curve.steps, curve.returns.T, color=colour, alpha=0.35, linewidth=0.9)
    draw_mean(axis, curve.steps, curve.returns, color=colour, linewidth=2.2, label=_label(curve))
    told = describe_diverged(curve.diverged)
    if len(curve.diverged) > 2:
        first = min(curve.diverged.values())
        told = f"{len(curve.diverged)} seeds diverged, the first by step {first:,}"
    draw_ends(axis, curve.steps, curve.returns[~curve.healthy], color=colour, label=told)


def _label(curve: Curve) -> str:
    count, known = len(curve.returns), np.isfinite(curve.returns[:, -1]).sum()
    if count == 1:
        return plain(f"{curve.label} (1 seed)")
    fewer = "" if known == count else f"; dotted: of fewer, {known} in the end"
    return plain(f"{curve.label} (mean of {count} seeds, 95 % interval{fewer})")


def draw_mean(
    axis: Axes, xs: np.ndarray, returns: np.ndarray, linestyle: str = "-", **style: Any
) -> None:
    """Draws the mean over seeds and its interval; dotted where it is not of all seeds.

    Args:
        axis: where to.
        xs: (T,).
        returns: (S, T); NaN where a seed has none.
        linestyle: where all seeds have a return.
        **style: of the line; `color` is needed.
    """
    mean = mean_of_known(returns, axis=0)
    low, high = interval_over_seeds(returns)
    axis.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    whole = np.asarray(np.isfinite(returns).all(axis=0))
    axis.plot(xs, np.where(whole, mean, np.nan), linestyle, **style)
    part = ~whole  # and the points beside, which the dots begin and end at
    part[:-1] |= ~whole[1:]
    part[1:] |= ~whole[:-1]
    if not whole.all():
        dots: dict[str, Any] = {**style, "label": None, "linestyle": (0, (1, 1))}
        axis.plot(xs, np.where(part, mean, np.nan), **dots)


def draw_ends(axis: Axes, xs: np.ndarray, returns: np.ndarray, **style: Any) -> None:
    """Draws a cross at the last return of each diverged seed, if there is one.

    Args:
        axis: where to.
        xs: (T,).
        returns: (S, T) of the diverged seeds; NaN from where they diverged.
        **style: of the crosses.
    """
    known = np.isfinite(returns)
    last = [int(np.flatnonzero(row)[-1]) for row in known if row.any()]
    if len(returns):
        heights = [seed[end] for seed, end in zip(returns[known.any(axis=1)], last, strict=True)]
        axis.plot(xs[last], heights, "X", markersize=8, markeredgecolor="white", **style)
