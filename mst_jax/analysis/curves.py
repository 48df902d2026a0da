"""Learning curves: what runs wrote, and what others published, as arrays."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mst_jax.analysis.statistics import estimate
from mst_jax.analysis.statistics import mean as mean_over_runs
from mst_jax.runs import read_metrics, read_settings
from mst_jax.runs.folder import seed_folders
from mst_jax.runs.health import diverged_by, return_of


class Curve(NamedTuple):
    """Evaluation returns of one run.

    Attributes:
        label: recipe.
        task: full task name.
        steps: (T,) agent steps.
        returns: (S, T) mean return of each seed's evaluation episodes; NaN where a seed has none.
        healthy: (S,) bool, whether a seed did not diverge.
        diverged: seed -> the step by which it had diverged, of those that did.
        seconds: of training up to the last evaluation, over all processes of the run.
        frames: environment steps of an agent step, of all environments of a seed; None in runs of
            before 2026-11-27, whose rows do not say.
    """

    label: str
    task: str
    steps: np.ndarray
    returns: np.ndarray
    healthy: np.ndarray
    diverged: dict[int, int]
    seconds: float
    frames: int | None = None


def read_rows(folder: Path) -> list[list[dict[str, Any]]]:
    """The metric rows of every seed of a run, in the order of the seeds.

    Raises:
        ValueError: when the folder is not a run or a seed has no metric file yet.
    """
    folders = seed_folders(folder, read_settings(folder).seed_list)
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
        diverged={
            seed: at for seed, at in zip(settings.seed_list, found, strict=True) if at is not None
        },
        seconds=max(_seconds_at_last_evaluation(rows) for rows in everything),
        frames=_frames(everything[0]),
    )


def total_seconds(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds that the training of a run had taken at each of a seed's rows.

    A process that resumes a run goes on counting. Until 2026-11-28 it began at zero; of such runs
    what a process did after its last row is not known and is left out.
    """
    totals, before, last = [], 0.0, 0.0
    for row in rows:
        seconds = row["wall/seconds"]
        before += last if seconds < last else 0.0
        last = seconds
        totals.append(before + seconds)
    return totals


def _seconds_at_last_evaluation(rows: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that training had taken at a seed's last evaluation; 0 where there is none."""
    found = zip(rows, total_seconds(rows), strict=True)
    return max((seconds for row, seconds in found if row["kind"] == "eval"), default=0.0)


def _frames(rows: Sequence[dict[str, Any]]) -> int | None:
    """Frames of an agent step by a seed's rows."""
    known = [row["frames"] // row["step"] for row in rows if row.get("frames")]
    return known[-1] if known else None


class Published(NamedTuple):
    """Mean and standard deviation over seeds, (T,) each, that somebody published for a task.

    Attributes:
        task: full task name.
        frames: environment steps of an agent step.
        steps: (T,) agent steps.
        mean: (T,) of the seeds' returns.
        std: (T,) likewise.
    """

    task: str
    frames: int
    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def read_published(path: Path) -> list[Published]:
    """Reads published curves, one for each task.

    The columns are task (its full name), frames (of an agent step), agent_steps, mean_return and
    std_return; others are left alone.

    Raises:
        KeyError: a column is missing.
        ValueError: a number is none, or the rows of a task differ in frames.
    """
    tasks: dict[str, list[dict[str, str]]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            tasks.setdefault(row["task"], []).append(row)
    columns = ("agent_steps", "mean_return", "std_return")
    curves = []
    for task, rows in tasks.items():
        frames = {int(row["frames"]) for row in rows}
        if len(frames) > 1:
            raise ValueError(f"rows of {task} have steps of {sorted(frames)} frames")
        numbers = (np.array([float(row[column]) for row in rows]) for column in columns)
        curves.append(Published(task, frames.pop(), *numbers))
    return curves


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
