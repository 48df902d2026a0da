"""Returns of training's own episodes, by which agents that learn from a stream are judged."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mst_jax.analysis.curves import read_rows
from mst_jax.runs import read_settings
from mst_jax.runs.health import diverged_by


class TrainingReturns(NamedTuple):
    """Mean returns of the episodes that ended between two metric rows.

    Attributes:
        seeds: (S,) int.
        steps: (T,) agent steps at which a window ends; it began at the one before.
        returns: (S, T) mean return; NaN where no episode ended, or from where a seed had diverged.
        episodes: (S, T) how many ended.
    """

    seeds: np.ndarray
    steps: np.ndarray
    returns: np.ndarray
    episodes: np.ndarray

    def over_last(self, steps: int) -> np.ndarray:
        """Mean return (S,) of all episodes that ended in the last `steps`; NaN without any.

        Raises:
            ValueError: no window begins there.
        """
        begins = np.concatenate([[0], self.steps[:-1]])
        start = self.steps[-1] - steps
        if start not in begins:
            raise ValueError(
                f"no window begins at step {start:,}: windows end every {self.steps[0]:,} steps"
            )
        own = begins >= start
        returns, episodes = self.returns[:, own], self.episodes[:, own]
        total = np.sum(np.where(episodes > 0, returns, 0.0) * episodes, axis=1)
        count = episodes.sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def read_training_returns(folder: Path) -> TrainingReturns:
    """Reads a run folder.

    Raises:
        ValueError: it is no run, has no metric rows of training yet, or rows that do not say how
            many episodes ended (runs of before 2026-11-27).
    """
    everything = [[row for row in rows if row["kind"] == "train"] for rows in read_rows(folder)]
    steps = [row["step"] for row in everything[0]]
    if not steps:
        raise ValueError(f"{folder} has no metric row of training yet")
    if any("episodes" not in row for rows in everything for row in rows):
        raise ValueError(f"{folder} does not say how many training episodes ended")
    diverged = [diverged_by(rows) for rows in everything]
    returns = [
        [row.get("return", np.nan) if end is None or row["step"] < end else np.nan for row in rows]
        for rows, end in zip(everything, diverged, strict=True)
    ]
    episodes = [[row["episodes"] for row in rows] for rows in everything]
    return TrainingReturns(
        np.array(read_settings(folder).seed_list),
        np.array(steps),
        np.array(returns, float),
        np.array(episodes),
    )
