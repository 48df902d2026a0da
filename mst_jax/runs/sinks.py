"""Where metrics go: one JSON-lines file per seed, always, and TensorBoard beside it."""

import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mst_jax.runs.files import replace_text
from mst_jax.runs.folder import METRICS

EVENTS = "events.out.tfevents*"  # what tensorboardX calls its files


class Sink(Protocol):
    """Takes one row of one seed at a time."""

    def write(self, seed_index: int, row: Mapping[str, Any]) -> None:
        """Writes a row with `step`, `kind`, `healthy` and metric values."""

    def sync(self) -> None:
        """Brings to the disk what was written, before a checkpoint that counts on it."""

    def close(self) -> None:
        """Flushes and closes."""


class JsonLines:
    """RUN/seed_I/metrics.jsonl; a non-finite value is written as null."""

    def __init__(self, folders: Sequence[Path]) -> None:
        # Unbuffered: a full disk must not be met again when the file is closed.
        self._files = [(folder / METRICS).open("ab", buffering=0) for folder in folders]

    def write(self, seed_index: int, row: Mapping[str, Any]) -> None:
        """Appends one line at once, so that a killed run loses nothing."""
        plain = {name: _plain(value) for name, value in row.items()}
        line, file = (json.dumps(plain, allow_nan=False) + "\n").encode(), self._files[seed_index]
        with _in(Path(file.name)):
            while line:
                line = line[file.write(line) :]

    def sync(self) -> None:
        """See `Sink`."""
        for file in self._files:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Closes all files."""
        for file in self._files:
            file.close()


class TensorBoard:
    """Event files beside each seed's metrics, with the same rows.

    Events cannot be cut back, and a machine that loses its power loses the last ones. So they are
    written anew from the metric files whenever a run begins or goes on; those then have the time of
    that moment. They are written by this thread: tensorboardX's own `SummaryWriter` leaves it to
    another one, and waits for ever when that one ends because the disk is full.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Opens the files; the metric files are cut back already."""
        from tensorboardX.event_file_writer import EventsWriter

        for folder in folders:
            for old in folder.glob(EVENTS):
                old.unlink()
        self._folders = folders
        self._writers = [EventsWriter(str(folder / "events")) for folder in folders]
        for index, folder in enumerate(folders):
            for row in read_metrics(folder):
                self.write(index, row)

    def write(self, seed_index: int, row: Mapping[str, Any]) -> None:
        """Adds every number of the row as a scalar named kind/metric."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=t, simple_value=value) for t, value in scalars(row).items()]
        event = Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values))
        with _in(self._folders[seed_index]):
            self._writers[seed_index].write_event(event)
            self._writers[seed_index].flush()

    def sync(self) -> None:
        """See `Sink`: what a crash loses is written anew."""

    def close(self) -> None:
        """Closes all files."""
        for folder, writer in zip(self._folders, self._writers, strict=True):
            with _in(folder):
                writer.close()


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row, named kind/metric; lists are left to the metric files."""
    return {
        f"{row['kind']}/{name}": math.nan if value is None else float(value)
        for name, value in row.items()
        if name not in ("step", "kind", "seed") and np.ndim(value) == 0
    }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All rows of one seed's folder; ValueError names a line that cannot be read."""
    rows, damaged = readable_rows(folder)
    if damaged:
        raise ValueError(f"line {damaged[0]} of {folder / METRICS} cannot be read as a row")
    return rows


def readable_rows(folder: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of one seed's folder, and the numbers of the lines that cannot be read as one.

    A half-written last line is neither: a killed process leaves it.
    """
    lines = (folder / METRICS).read_bytes().split(b"\n")[:-1]
    rows = [_row(line) for line in lines]
    damaged = [number for number, row in enumerate(rows, start=1) if row is None]
    return [row for row in rows if row is not None], damaged


def kept_rows(folder: Path, step: int) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows up to `step`, and the numbers of lines after them that cannot be read.

    Rows of kind `final` are not kept: they are made after the last checkpoint.

    Raises:
        ValueError: when a line among the rows to be kept cannot be read: a row of the past is lost.
    """
    if not (folder / METRICS).exists():
        return [], []
    rows, damaged = readable_rows(folder)
    kept = [row for row in rows if row["step"] <= step and row.get("kind") != "final"]
    before = [line for line in damaged if line <= len(kept)]
    if before:
        raise ValueError(
            f"line {before[0]} of {folder / METRICS} cannot be read, and the run would "
            f"go on after it, from step {step:,}; delete the line to go on without it"
        )
    return kept, damaged


def cut_back(folder: Path, step: int) -> None:
    """Drops the rows after `step`, and lines that cannot be read, as if they had never been.

    Raises:
        ValueError: as `kept_rows`.
    """
    path = folder / METRICS
    if not path.exists():
        return
    rows, damaged = kept_rows(folder, step)
    if damaged:
        warnings.warn(
            f"{len(damaged)} lines of {path} after step {step:,} cannot be read and are dropped",
            stacklevel=2,
        )
    replace_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


@contextmanager
def _in(path: Path) -> Iterator[None]:
    """An error of the operating system says where it happened."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        return row if isinstance(row["step"], int) else None
    except (ValueError, TypeError, KeyError):
        return None


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
