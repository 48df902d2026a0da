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
from mst_jax.training import read_metrics, read_settings

# Okabe and Ito's palette: distinguishable with colour-vision deficiency and in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Curve(NamedTuple):
    """Evaluation returns of one run.

    Attributes:
        label: recipe.
        task: full task name.
        steps: (T,) agent steps.
        returns: (S, T) mean return of each seed's evaluation episodes; NaN where a seed has none.
        healthy: (S,) bool, whether a seed's parameters stayed finite.
        seconds: wall-clock seconds of the process that wrote the last row.
    """

    label: str
    task: str
    steps: np.ndarray
    returns: np.ndarray
    healthy: np.ndarray
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
    settings = read_settings(folder)
    seeds = [[row for row in rows if row["kind"] == "eval"] for rows in read_rows(folder)]
    steps = sorted({row["step"] for rows in seeds for row in rows})
    if not steps:
        raise ValueError(f"{folder} holds no evaluation yet")
    returns = np.full((len(seeds), len(steps)), np.nan)
    for index, rows in enumerate(seeds):
        for row in rows:
            if row["return"] is not None:
                returns[index, steps.index(row["step"])] = row["return"]
    healthy = np.array([all(row["healthy"] for row in rows) for rows in seeds])
    seconds = max(rows[-1]["wall/seconds"] for rows in seeds if rows)
    return Curve(settings.recipe, settings.task, np.array(steps), returns, healthy, seconds)


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
        axis.set(title=task, xlabel="agent steps", ylabel="evaluation return")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=160)


def _draw(axis: Axes, curve: Curve, colour: str) -> None:
    axis.plot(curve.steps, curve.returns.T, color=colour, alpha=0.35, linewidth=0.9)
    mean = mean_over_seeds(curve.returns)
    count = len(curve.returns)
    about = "1 seed" if count == 1 else f"mean of {count} seeds, 95 % interval"
    low, high = interval_over_seeds(curve.returns)
    axis.fill_between(curve.steps, low, high, color=colour, alpha=0.15, linewidth=0)
    label = f"{curve.label} ({about})"
    axis.plot(curve.steps, mean, color=colour, linewidth=2.2, label=label)


def mean_over_seeds(values: np.ndarray) -> np.ndarray:
    """Mean of the finite entries over the first axis: (S, T) to (T,), NaN where there is none."""
    seen = np.isfinite(values)
    total = np.where(seen, values, 0.0).sum(axis=0)
    return np.where(seen.any(axis=0), total / np.maximum(seen.sum(axis=0), 1), np.nan)


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
