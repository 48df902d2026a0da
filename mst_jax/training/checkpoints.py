"""Checkpoints in three tiers, written atomically and restored whole or not at all.

Full: everything, so that a resumed run equals one that never stopped; one kept, plus the one in
flight. Light: what acting and looking at the topology need; the last few kept. Best: the same of
each seed's best evaluation so far, written beside a full checkpoint.
"""

import json
import logging
import shutil
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from mst_jax.training.arrays import Arrays

FULL, LIGHT, BEST = "full", "light", "best"
KEPT = {FULL: 1, LIGHT: 5, BEST: 1}
MANIFEST = "manifest.json"


class Checkpoint(NamedTuple):
    """What was read: the environment step it was written at, and its arrays."""

    step: int
    arrays: Arrays


class DamagedCheckpointError(Exception):
    """A checkpoint whose files are missing, unreadable or not what was written."""


def save(folder: Path, tier: str, step: int, arrays: Arrays) -> None:
    """Writes a checkpoint and then deletes the older ones of its tier beyond those kept.

    Args:
        folder: the run's checkpoint folder.
        tier: `full`, `light` or `best`.
        step: environment step, its name; an existing one of the same step is replaced.
        arrays: named arrays.
    """
    save_together([folder], tier, step, [arrays])


def save_together(folders: Sequence[Path], tier: str, step: int, parts: Sequence[Arrays]) -> None:
    """Writes a checkpoint in each folder, and only when all are there deletes the older ones.

    So there is a step that all folders have, whenever the process is killed.
    """
    for folder, arrays in zip(folders, parts, strict=True):
        _write(_path(folder, tier, step), step, arrays)
    for folder in folders:
        for old in _steps(folder, tier)[: -KEPT[tier]]:
            shutil.rmtree(old)


def saved_steps(folder: Path, tier: str) -> list[int]:
    """Steps of the finished checkpoints of a tier, oldest first."""
    return [int(path.name) for path in _steps(folder, tier)]


def load_newest(folder: Path, tier: str) -> Checkpoint | None:
    """Reads the newest intact checkpoint of a tier; a damaged one is skipped with a warning.

    Returns:
        The checkpoint, or None when there is none at all.

    Raises:
        DamagedCheckpointError: when there are checkpoints and none is intact.
    """
    if not _steps(folder, tier):
        return None
    return load_together([folder], tier)[0]


def load_together(folders: Sequence[Path], tier: str) -> list[Checkpoint]:
    """Reads the newest checkpoints of one step that are intact in all of several folders.

    Raises:
        DamagedCheckpointError: when there is no such step.
    """
    common = set.intersection(*(set(saved_steps(folder, tier)) for folder in folders))
    for step in sorted(common, reverse=True):
        try:
            return [_load(_path(folder, tier, step)) for folder in folders]
        except DamagedCheckpointError as error:
            warnings.warn(f"{error}; trying the one before", stacklevel=3)
    where = ", ".join(str(folder) for folder in folders)
    raise DamagedCheckpointError(f"no intact {tier} checkpoint in {where}; start the run anew")


def _write(final: Path, step: int, arrays: Arrays) -> None:
    partial = final.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        # orbax refuses arrays without elements; the manifest is enough to make them again.
        stored = {name: array for name, array in arrays.items() if array.size}
        checkpointer.save((partial / "arrays").absolute(), stored)
    manifest = {name: [str(a.dtype), list(a.shape), _checksum(a)] for name, a in arrays.items()}
    (partial / MANIFEST).write_text(json.dumps({"step": step, "arrays": manifest}))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def _load(path: Path) -> Checkpoint:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        with ocp.PyTreeCheckpointer() as checkpointer:
            arrays = checkpointer.restore((path / "arrays").absolute())
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        for name, (dtype, shape, _) in manifest["arrays"].items():
            if 0 in shape:
                arrays[name] = np.zeros(shape, dtype)
        # orbax casts dtypes silently, so what came back is compared with what was written.
        found = {name: [str(a.dtype), list(a.shape), _checksum(a)] for name, a in arrays.items()}
    except (OSError, ValueError, KeyError) as error:
        raise DamagedCheckpointError(
            f"checkpoint {path} cannot be read ({type(error).__name__})"
        ) from error
    if found != manifest["arrays"]:
        raise DamagedCheckpointError(f"checkpoint {path} is not what was written")
    return Checkpoint(manifest["step"], arrays)


def _path(folder: Path, tier: str, step: int) -> Path:
    return folder / tier / f"{step:012d}"


def _steps(folder: Path, tier: str) -> list[Path]:
    """Finished checkpoints, oldest first; one in flight has a suffix and does not count."""
    return sorted(path for path in (folder / tier).glob("[0-9]*") if not path.suffix)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data) if array.size else 0


logging.getLogger("absl").setLevel(logging.ERROR)  # orbax narrates every save otherwise
