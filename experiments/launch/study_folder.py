"""A study on disk: which cells it has, where their runs are, and how far each has come."""

import json
import shutil
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from experiments.studies import Cell, check_distinct
from mst_jax.names import dotted, with_article
from mst_jax.runs import (
    Settings,
    is_blank,
    is_finished,
    read_settings,
    rebuild_settings,
    settings_values,
)
from mst_jax.runs.files import replace_text
from mst_jax.runs.json_file import read_json
from mst_jax.runs.lock import GUARD, exclusive, owner

MANIFEST = "study.json"


class Status(Enum):
    """How far a cell has come."""

    FINISHED = "finished"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"  # begun, not running: the next launch resumes it
    MISSING = "not begun"


class StudyFolder:
    """The folder of a study: `study.json`, `runs/`, `state/` (failures) and `logs/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def state(self) -> Path:
        """Failures of cells."""
        return self.path / "state"

    def run(self, cell: Cell) -> Path:
        """Where the run of a cell is."""
        return self.path / "runs" / cell.settings.folder_name

    def log(self, cell: Cell) -> Path:
        """What the process of a cell printed."""
        return self.path / "logs" / f"{cell.id}.txt"

    def join(self, study: str, size: str, cells: Sequence[Cell], command: str) -> list[Cell]:
        """Adds cells to the manifest, which is created first; cells that are there must be equal.

        Returns:
            All cells of the study.

        Raises:
            ValueError: another study's folder, or a cell that was set up otherwise before.
        """
        self._merged(study, size, cells)  # refuses before anything is written
        for folder in (self.state, self.path / "logs", self.path / "runs"):
            folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.state / GUARD):
            path = self.path / MANIFEST
            merged, said = self._merged(study, size, cells)
            new = {
                "study": study,
                "size": size,
                "commands": list(dict.fromkeys([*said, command])),
                "cells": [_plain(cell) for cell in merged],
            }
            replace_text(path, json.dumps(new, indent=1) + "\n")
        return merged

    def _merged(self, study: str, size: str, cells: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
        """All cells, the new ones included, and the commands so far; ValueError as `join`."""
        if not (self.path / MANIFEST).exists():
            return list(cells), []
        old = self.manifest()
        if (old["study"], old["size"]) != (study, size):
            raise ValueError(
                f"{self.path} holds {old['study']} at size {old['size']}, not {study} at "
                f"{size}; choose another logdir"
            )
        known = {cell.id: cell for cell in self.cells()}
        for cell in cells:
            if cell.id in known:
                require_same(known[cell.id].settings, cell.settings, cell.id)
        merged = list({**known, **{cell.id: cell for cell in cells}}.values())
        check_distinct(merged)
        return merged, old["commands"]

    def manifest(self) -> dict[str, Any]:
        """The manifest as written; ValueError when the folder has none or it is damaged."""
        path = self.path / MANIFEST
        if not path.is_file():
            raise ValueError(f"{self.path} is not a study folder: it has no {MANIFEST}")
        found = read_json(path)
        kinds = {"study": str, "size": str, "commands": list, "cells": list}
        for name, kind in kinds.items():
            if not isinstance(found.get(name), kind):
                raise ValueError(
                    f"{path} is damaged: its {name!r} is not {with_article(kind.__name__)}"
                )
        if not found["cells"]:
            raise ValueError(f"{path} is damaged: it has no cells")
        return found

    def cells(self) -> list[Cell]:
        """All cells of the study, in the order of the plan.

        Raises:
            ValueError: the manifest is damaged, or names a run outside of the study's folder.
        """
        path = self.path / MANIFEST
        try:
            raw = self.manifest()["cells"]
            cells = [Cell(one["labels"], rebuild_settings(one["settings"])) for one in raw]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: a cell cannot be read: {error!r}") from error
        runs = (self.path / "runs").resolve()
        for cell in cells:
            if not self.run(cell).resolve().is_relative_to(runs):
                raise ValueError(f"{path} names {self.run(cell)}, which is not in {runs}")
        return cells

    def cell(self, cell_id: str) -> Cell:
        """One cell by its name; ValueError when there is none."""
        for cell in self.cells():
            if cell.id == cell_id:
                return cell
        raise ValueError(f"{self.path} has no cell {cell_id!r}")

    def status(self, cell: Cell) -> Status:
        """How far a cell has come."""
        if is_finished(self.run(cell)):
            return Status.FINISHED
        if owner(self.run(cell)) is not None:
            return Status.RUNNING
        if self.failure(cell) is not None:
            return Status.FAILED
        return Status.MISSING if is_blank(self.run(cell)) else Status.STOPPED

    def failure(self, cell: Cell) -> dict[str, Any] | None:
        """How a cell failed last: `message`, `attempts` and `time`; None if it did not."""
        try:
            found = read_json(self._failure(cell))
            return {name: found[name] for name in ("message", "attempts", "time")}
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def record_failure(self, cell: Cell, message: str, attempts: int) -> None:
        """Remembers a failure; on a full disk the launcher's own report has to do."""
        found = {"message": message, "attempts": attempts, "time": time.time()}
        try:
            self._failure(cell).write_text(json.dumps(found), encoding="utf-8")
        except OSError as error:
            print(f"{cell.id}: the failure could not be recorded: {error.strerror}")

    def forget_failure(self, cell: Cell) -> None:
        """A cell that runs again has not failed."""
        self._failure(cell).unlink(missing_ok=True)

    def _failure(self, cell: Cell) -> Path:
        return self.state / f"{cell.id}.failed.json"


def drop_full_checkpoints(run: Path) -> None:
    """Deletes what only resuming needs, the replay buffer above all; policies are kept."""
    shutil.rmtree(run / "checkpoints" / "full", ignore_errors=True)


def require_same(old: Settings, new: Settings, name: str) -> None:
    """Raises ValueError naming the first setting in which two set-ups of a cell differ."""
    before, after = dotted(old), dotted(new)
    for key in before.keys() | after.keys():
        if before.get(key) != after.get(key):
            raise ValueError(
                f"{name} is there with {key}={before.get(key)}, not {after.get(key)}; "
                "choose another logdir"
            )


def is_begun(run: Path, settings: Settings) -> bool:
    """Whether there is a run to resume, and not only what was killed before it wrote its settings.

    Raises:
        ValueError: the run has other settings, or they are damaged.
    """
    if is_blank(run):
        return False
    require_same(read_settings(run), settings, str(run))
    return True


def _plain(cell: Cell) -> dict[str, Any]:
    return {
        "id": cell.id,
        "labels": cell.labels,
        "settings": settings_values(cell.settings),
    }
