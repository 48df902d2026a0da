"""Learning curves: what runs wrote, as arrays, and as a figure with every seed in it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mst_jax.analysis.statistics import estimate
from mst_jax.analysis.statistics import mean as mean_over_runs
from mst_jax.analysis.text import plain
from mst_jax.training import Settings, read_metrics, read_settings
from mst_jax.training.health import describe_diverged, diverged_by, mean_of_known, return_of
from mst_jax.training.sinks import METRICS

# Okabe and Ito's palette: distinguishable with colour-vision deficiency and in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Curve(NamedTuple):
    """Evaluation returns of one run.

    Attributes:
        label: recipe.
        task: full task name.
        steps: (T,) agent steps.
        returns: (S, T) mean return of each seed's evaluation episodes; NaN where a seed has none.
        healthy: (S,) bool, whether a seed did not diverge.
        diverged: seed -> the step by which it had diverged, of those that did.
        seconds: wall-clock seconds of the process that wrote the last row.
    """

    label: str
    task: str
    steps: np.ndarray
    returns: np.ndarray
    healthy: np.ndarray
    diverged: dict[int, int]
    seconds: float


def read_rows(folder: Path) -> list[list[dict[str, Any]]]:
    """The metric rows of every seed of a run, in the order of the seeds.

    Raises:
        ValueError: when the folder is not a run or a seed has no metric file yet.
    """
    folders = [folder / f"seed_{seed}" for seed in read_settings(folder).seed_list]
    try:
        return [read_metrics(seed) for seed in folders]
    except FileNotFoundError as error:
        raise ValueError(f"{folder} has no metrics yet; let it train to its first row") from error


def read_curve(folder: Path) -> Curve:
    """Reads a run folder; raises ValueError when it is not one or holds no evaluation yet."""
    settings, everything = read_settings(folder), read_rows(folder)
    seeds = [[row for row in rows if row["kind"] == "eval"] for rows in everything]
    steps = sorted({row["step"] for rows in seeds for row in rows})
    if not steps:
        raise ValueError(f"{folder} holds no evaluation yet")
    found = [diverged_by(rows) for rows in everything]
    returns = np.full((len(seeds), len(steps)), np.nan)
    for index, rows in enumerate(seeds):
        for row in rows:
            returns[index, steps.index(row["step"])] = return_of(row, found[index])
    return Curve(
        label=settings.recipe,
        task=settings.task,
        steps=np.array(steps),
        returns=returns,
        healthy=np.array([step is None for step in found]),
        diverged=_of_seeds(settings, found),
        seconds=max(rows[-1]["wall/seconds"] for rows in seeds if rows),
    )


def read_diverged(folder: Path) -> dict[int, int]:
    """Seed -> the step by which it had diverged, of the seeds of a run that did.

    A seed without metric rows is not known to have. Raises ValueError when it is not a run folder.
    """
    settings = read_settings(folder)
    folders = [folder / f"seed_{seed}" for seed in settings.seed_list]
    rows = [read_metrics(seed) if (seed / METRICS).is_file() else [] for seed in folders]
    return _of_seeds(settings, [diverged_by(own) for own in rows])


def _of_seeds(settings: Settings, found: list[int | None]) -> dict[int, int]:
    pairs = zip(settings.seed_list, found, strict=True)
    return {seed: step for seed, step in pairs if step is not None}


class Published(NamedTuple):
    """Mean and standard deviation over seeds, (T,) each, that somebody published for a task."""

    task: str
    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def read_published(path: Path) -> list[Published]:
    """Reads published curves, one for each task.

    The columns are suite, task (`Suite-name`), agent_steps, mean_return and std_return.
    """
    tasks: dict[str, list[dict[str, str]]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            suite, _, name = row["task"].partition("-")
            tasks.setdefault(f"{suite.lower()}:{name}", []).append(row)
    columns = ("agent_steps", "mean_return", "std_return")
    return [
        Published(task, *(np.array([float(row[c]) for row in rows]) for c in columns))
        for task, rows in tasks.items()
    ]


def draw_curves(curves: Sequence[Curve], path: Path, published: Sequence[Published] = ()) -> None:
    """Draws each run's seeds, their mean in bold and its interval; one panel for each task.

    Published curves of the same tasks are drawn beside, as points with one standard deviation, up
    to where ours end.
    """
    names = sorted({curve.task for curve in curves})
    figure = Figure(figsize=(5.2 * len(names), 3.6), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)
    for axis, task in zip(axes[0], names, strict=True):
        for index, curve in enumerate(c for c in curves if c.task == task):
            _draw(axis, curve, PALETTE[index % len(PALETTE)])
        end = max(curve.steps[-1] for curve in curves if curve.task == task)
        for other in (p for p in published if p.task == task):
            seen = other.steps <= end
            points = (other.steps[seen], other.mean[seen], other.std[seen])
            axis.errorbar(*points, fmt="s", color="0.3", capsize=3, label="published, mean and sd")
        axis.set(title=plain(task), xlabel="agent steps", ylabel="evaluation return")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=160)


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
    whole = np.isfinite(returns).all(axis=0)
    axis.plot(xs, np.where(whole, mean, np.nan), linestyle, **style)
    part = ~whole  # and the points beside, which the dots begin and end at
    part[:-1] |= ~whole[1:]
    part[1:] |= ~whole[:-1]
    if not whole.all():
        dots = {**style, "label": None, "linestyle": (0, (1, 1))}
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


def interval_over_seeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap interval of the mean at each step, over the seeds that are finite there.

    Args:
        values: (S, T).

    Returns:
        Lower and upper ends (T,) each; NaN where fewer than two seeds are finite.
    """
    ends = np.full((2, values.shape[1]), np.nan)
    for index, column in enumerate(values.T):
        seen = column[np.isfinite(column)]
        if len(seen) > 1:
            found = estimate(mean_over_runs, [seen])
            ends[:, index] = found.low, found.high
    return ends[0], ends[1]
