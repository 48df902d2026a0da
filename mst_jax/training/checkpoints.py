"""Checkpoints in three tiers, written atomically and restored whole or not at all.

Full: everything, so that a resumed run equals one that never stopped; the newest two kept, so that
there is one to fall back to. Light: what acting and looking at the topology need; the last few
kept. Best: the same of each seed's best evaluation so far, written beside a full one.

STEP/arrays/N are orbax checkpoints of some of the arrays, cut into blocks: orbax takes several
times what it is given, so it is given a little at a time. STEP/manifest.json says what they are.
"""

import errno
import json
import logging
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from mst_jax.runs.files import PARTIAL, sync, sync_tree
from mst_jax.training.arrays import Arrays, blocks

FULL, LIGHT, BEST = "full", "light", "best"
KEPT = {FULL: 2, LIGHT: 5, BEST: 1}
MANIFEST, ARRAYS = "manifest.json", "arrays"
CLOCK = "clock/step"  # the array of a run that says at which step it is
# A piece is a sixteenth of all, so that four or five times a piece is well below half; pieces of
# less than some megabytes would only cost time.
PIECES, SMALLEST_PIECE = 16, 8_000_000
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError)


class Checkpoint(NamedTuple):
    """What was read.

    Attributes:
        step: agent steps taken when it was written.
        arrays: named arrays.
        config: what config.json held when the run began; None if that was not recorded.
    """

    step: int
    arrays: Arrays
    config: dict[str, Any] | None = None


class DamagedCheckpointError(Exception):
    """A checkpoint whose files are missing, unreadable or not what was written."""


def save(
    folder: Path, tier: str, step: int, arrays: Arrays, config: Mapping[str, Any] | None = None
) -> None:
    """Writes a checkpoint and then deletes the older ones of its tier beyond those kept.

    Args:
        folder: the run's checkpoint folder.
        tier: `full`, `light` or `best`.
        step: agent step, its name; an existing one of the same step is replaced.
        arrays: named arrays.
        config: what the run's config.json holds, to recognise another one when resuming.
    """
    save_together([folder], tier, step, [arrays], [config])


def save_together(
    folders: Sequence[Path],
    tier: str,
    step: int,
    parts: Sequence[Arrays],
    configs: Sequence[Mapping[str, Any] | None],
) -> None:
    """Writes a checkpoint in each folder, and only when all are there deletes the older ones.

    So there is a step that all folders have, whenever the process is killed. Full checkpoints are
    also read again before anything is deleted.

    Raises:
        DamagedCheckpointError: what was read is not what was written.
        OSError: the disk is full. In both cases the older ones are still there.
    """
    for folder, arrays, config in zip(folders, parts, configs, strict=True):
        try:
            _write(_path(folder, tier, step), step, arrays, config)
        except OSError as error:
            error.filename = error.filename or str(folder)  # orbax does not always say where
            raise
    if tier == FULL:
        for folder in folders:
            _verify(_path(folder, tier, step))
    for folder in folders:
        for old in _steps(folder, tier)[: -KEPT[tier]]:
            shutil.rmtree(old)


def saved_steps(folder: Path, tier: str) -> list[int]:
    """Steps of the finished checkpoints of a tier, oldest first."""
    return [int(path.name) for path in _steps(folder, tier)]


def cut_back(folder: Path, step: int) -> None:
    """Deletes the checkpoints after `step`, and those half-written, as if they had never been."""
    for tier in KEPT:
        for path in (folder / tier).glob(f"*{PARTIAL}"):
            shutil.rmtree(path)
        for path in _steps(folder, tier):
            if int(path.name) > step:
                shutil.rmtree(path)


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


def _write(final: Path, step: int, arrays: Arrays, config: Mapping[str, Any] | None) -> None:
    """Writes beside, and renames when all of it is on the disk."""
    partial = final.with_name(final.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    (partial / ARRAYS).mkdir(parents=True)
    count = 0
    with ocp.PyTreeCheckpointer() as checkpointer:
        for piece in _pieces(arrays):
            _save_piece(checkpointer, (partial / ARRAYS / str(count)).absolute(), piece)
            count += 1
    described = {name: [str(a.dtype), list(a.shape), _checksum(a)] for name, a in arrays.items()}
    manifest = {"step": step, "config": config, "pieces": count, "arrays": described}
    (partial / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    sync_tree(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for folder in (final.parent, final.parent.parent):
        sync(folder)


def _save_piece(checkpointer: ocp.PyTreeCheckpointer, path: Path, piece: Arrays) -> None:
    """Writes a tree of arrays; OSError when the disk is full.

    It is asked for before, because threads of orbax print tracebacks when it is full.
    """
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if shutil.disk_usage(path.parent).free < sum(block.nbytes for block in piece.values()):
        raise full
    try:
        checkpointer.save(path, piece)
    except ValueError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise full from error
        raise


def _pieces(arrays: Arrays) -> Iterator[Arrays]:
    """All blocks of all arrays, in order, as trees of bounded size, each name once in a tree."""
    largest = max(SMALLEST_PIECE, sum(array.nbytes for array in arrays.values()) // PIECES)
    piece: Arrays = {}
    for name, array in arrays.items():
        for block in blocks(array, largest):
            size = sum(other.nbytes for other in piece.values()) + block.nbytes
            if piece and (name in piece or size > largest):
                yield piece
                piece = {}
            piece[name] = block.reshape(-1)
    if piece:
        yield piece


def _verify(path: Path) -> None:
    """Raises DamagedCheckpointError unless a checkpoint is what its manifest says."""
    try:
        manifest = _manifest(path)
        checksums = dict.fromkeys(manifest["arrays"], 0)
        for piece in _read_pieces(path, manifest):
            for name, block in piece.items():
                checksums[name] = zlib.crc32(block.reshape(-1).view(np.uint8).data, checksums[name])
        intact = checksums == {name: crc for name, (_, _, crc) in manifest["arrays"].items()}
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not intact:
        raise _altered(path)


def _load(path: Path) -> Checkpoint:
    """Reads a checkpoint piece by piece, so that there are never two copies of its arrays."""
    try:
        manifest = _manifest(path)
        shapes = {n: (dtype, shape) for n, (dtype, shape, _) in manifest["arrays"].items()}
        arrays = {name: np.empty(shape, dtype) for name, (dtype, shape) in shapes.items()}
        filled = dict.fromkeys(arrays, 0)
        for piece in _read_pieces(path, manifest):
            for name, block in piece.items():
                # orbax casts dtypes silently, so what came back is compared with what was written.
                if block.dtype != arrays[name].dtype:
                    raise _altered(path)
                start, filled[name] = filled[name], filled[name] + block.size
                arrays[name].reshape(-1)[start : filled[name]] = block.reshape(-1)
        whole = all(filled[name] == array.size for name, array in arrays.items())
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    checksums = {name: crc for name, (_, _, crc) in manifest["arrays"].items()}
    if not whole or checksums != {name: _checksum(array) for name, array in arrays.items()}:
        raise _altered(path)
    says = {manifest["step"], int(path.name), int(arrays.get(CLOCK, manifest["step"]))}
    if len(says) > 1:
        raise DamagedCheckpointError(
            f"checkpoint {path} says it is of step {manifest['step']}, and its clock and name "
            f"{' and '.join(str(step) for step in sorted(says - {manifest['step']}))}"
        )
    return Checkpoint(manifest["step"], arrays, manifest.get("config"))


def _manifest(path: Path) -> dict[str, Any]:
    return json.loads((path / MANIFEST).read_text(encoding="utf-8"))


def _read_pieces(path: Path, manifest: Mapping[str, Any]) -> Iterator[Arrays]:
    """The pieces as they were written; earlier versions wrote whole arrays, and all at once."""
    folder = (path / ARRAYS).absolute()
    count = manifest.get("pieces")
    paths = [folder] if count is None else [folder / str(number) for number in range(count)]
    with ocp.PyTreeCheckpointer() as checkpointer:
        for one in paths:
            yield {name: np.asarray(block) for name, block in checkpointer.restore(one).items()}


def _unreadable(path: Path, error: Exception) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"checkpoint {path} cannot be read ({type(error).__name__})")


def _altered(path: Path) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"checkpoint {path} is not what was written")


def _path(folder: Path, tier: str, step: int) -> Path:
    return folder / tier / f"{step:012d}"


def _steps(folder: Path, tier: str) -> list[Path]:
    """Finished checkpoints, oldest first; one in flight has a suffix and does not count."""
    return sorted(path for path in (folder / tier).glob("[0-9]*") if not path.suffix)


def _checksum(array: np.ndarray) -> int:
    value = 0
    for block in blocks(array, SMALLEST_PIECE):
        value = zlib.crc32(block.reshape(-1).view(np.uint8).data, value)
    return value


logging.getLogger("absl").setLevel(logging.ERROR)  # orbax narrates every save otherwise
