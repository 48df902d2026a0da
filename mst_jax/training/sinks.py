"""Where metrics go: one JSON-lines file per seed, always, and TensorBoard beside it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

METRICS = "metrics.jsonl"


class Sink(Protocol):
    """Takes one row of one seed at a time."""

    def write(self, seed_index: int, row: Mapping[str, Any]) -> None:
        """Writes a row with `step`, `kind`, `healthy` and metric values."""

    def close(self) -> None:
        """Flushes and closes."""


class JsonLines:
    """RUN/seed_I/metrics.jsonl; a non-finite value is written as null."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files = [(folder / METRICS).open("a", encoding="utf-8") for folder in folders]

    def write(self, seed_index: int, row: Mapping[str, Any]) -> None:
        """Appends one line and flushes, so that a killed run loses nothing."""
        plain = {name: _plain(value) for name, value in row.items()}
        self._files[seed_index].write(json.dumps(plain, allow_nan=False) + "\n")
        self._files[seed_index].flush()

    def close(self) -> None:
        """Closes all files."""
        for file in self._files:
            file.close()


class TensorBoard:
    """Event files beside each seed's metrics; a resumed run hides what it will do again."""

    def __init__(self, folders: Sequence[Path], step: int) -> None:
        from tensorboardX import SummaryWriter

        purge = step + 1 if step else None
        self._writers = [SummaryWriter(str(folder), purge_step=purge) for folder in folders]

    def write(self, seed_index: int, row: Mapping[str, Any]) -> None:
        """Adds every number of the row as a scalar named kind/metric."""
        for tag, value in scalars(row).items():
            self._writers[seed_index].add_scalar(tag, value, row["step"])

    def close(self) -> None:
        """Flushes and closes all writers."""
        for writer in self._writers:
            writer.close()


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row, named kind/metric; lists are left to the metric files."""
    return {
        f"{row['kind']}/{name}": float(value)
        for name, value in row.items()
        if name not in ("step", "kind", "seed") and np.ndim(value) == 0
    }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All rows of one seed's folder."""
    with (folder / METRICS).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def cut_back(folder: Path, step: int) -> None:
    """Drops the rows after `step`, and a half-written last line, as if they had never been.

    Rows of kind `final` are dropped as well: they are made after the last checkpoint.
    """
    path = folder / METRICS
    if not path.exists():
        return
    rows = [r for r in read_metrics(folder) if r["step"] <= step and r.get("kind") != "final"]
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
