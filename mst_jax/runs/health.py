"""Whether a seed is healthy at a step, by the rows of its run (`program.health`: on the device).

A seed has diverged once something that it learns or acts by is not finite. It has no return from
then on, for ever: a policy whose actions are zero is another policy, whatever it would earn, and a
reset does not bring back the seed that was asked for.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mst_jax.runs.config_file import read_settings
from mst_jax.runs.folder import METRICS, seed_folder
from mst_jax.runs.sinks import read_metrics


def diverged_by(rows: Iterable[Mapping[str, Any]]) -> int | None:
    """The step of the first row that shows that its seed had diverged; None if none does.

    Rows of versions that did not check at evaluations (their rows have no `episodes`) repeat what
    the last `train` row found. When the next one finds the seed diverged, it is not known whether
    the evaluations in between were of a finite policy, and the first of them counts as not.

    Args:
        rows: of one seed, in the order in which they were written.
    """
    checked, unchecked = 0, None
    for row in rows:
        if not row["healthy"]:
            return row["step"] if unchecked is None else unchecked
        if row["kind"] == "train" or "episodes" in row:
            checked, unchecked = row["step"], None
        elif row["kind"] == "eval" and unchecked is None and row["step"] > checked:
            unchecked = row["step"]
    return None


def read_diverged(folder: Path) -> dict[int, int]:
    """Seed -> the step by which it had diverged, of the seeds of a run that did.

    A seed without metric rows is not known to have. Raises ValueError when it is not a run folder.
    """
    found = {}
    for seed in read_settings(folder).seed_list:
        own = seed_folder(folder, seed)
        step = diverged_by(read_metrics(own)) if (own / METRICS).is_file() else None
        if step is not None:
            found[seed] = step
    return found


def healthy_at(step: int, diverged: int | None) -> bool:
    """Whether a seed is healthy at a step, by what `diverged_by` says of its rows."""
    return diverged is None or step < diverged


def return_of(row: Mapping[str, Any], diverged: int | None) -> float:
    """The mean return in an evaluation's row; NaN where the seed or its episodes have none."""
    known = row["return"] is not None and healthy_at(row["step"], diverged)
    return row["return"] if known else math.nan


def returns_of(row: Mapping[str, Any], diverged: int | None) -> list[float]:
    """The returns of the episodes in an evaluation's row, of those that have one."""
    seen = row.get("returns", []) if healthy_at(row["step"], diverged) else []
    return [value for value in seen if value is not None]


def describe_diverged(diverged: Mapping[int, int]) -> str:
    """In words which seeds diverged and when, of {seed: step}; empty if none did."""
    return ", ".join(f"seed {seed} diverged by step {step:,}" for seed, step in diverged.items())


def mean_of_known(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean over an axis of the entries that are finite; NaN where there is none."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=axis)
    mean = total / np.maximum(known.sum(axis=axis), 1)
    return np.where(known.any(axis=axis), mean, np.nan)[()]  # a number, not a 0-d array
