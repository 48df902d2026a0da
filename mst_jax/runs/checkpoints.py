"""Checkpoints in three tiers, written atomically and restored whole or not at all.

Full: everything, so that a resumed run equals one that never stopped; the newest two kept, so that
there is one to fall back to. Light: what acting and looking at the topology need; the last few
kept. Best: the same of each seed's best evaluation so far, written beside a full one.

Pictures in replay are many and do not change: each is written once, in a segment beside the first
full checkpoint after it was stored. Full checkpoints name the segments that hold their frames, and
a segment is kept as long as one of them does.

STEP/manifest.json says which arrays there are; STEP/arrays/N are orbax checkpoints of their bytes,
one array after the other, in pieces: orbax takes several times the memory of what it is given, and
never frees some of it for every array, so it is given one array of bytes, a little at a time.
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

from mst_jax.replay import frames
from mst_jax.runs.arrays import BUFFER, Arrays, blocks, with_prefix
from mst_jax.runs.files import PARTIAL, sync, sync_tree

FULL, LIGHT, BEST = "full", "light", "best"
KEPT = {FULL: 2, LIGHT: 5, BEST: 1}
SEGMENTS = f"{FULL}/segments"  # as a tier has its folder
RECENT, WRITTEN = f"{BUFFER}{frames.RECENT}", f"{BUFFER}{frames.WRITTEN}"
MANIFEST, ARRAYS, BYTES = "manifest.json", "arrays", "bytes"
CLOCK = "clock/step"  # the array of a run that says at which step it is
# A piece is a sixteenth of all, so that four or five times a piece is well below half; pieces of
# less than some megabytes would only cost time.
PIECES, SMALLEST_PIECE = 16, 8_000_000
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError)


Segment = tuple[int, list[int]]  # the step it is of, and how many slots each cursor had passed


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
        arrays: named arrays; of a replay buffer with frames those that came since `written_before`.
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
            segments = _save_segment(folder, step, arrays) if RECENT in arrays else None
            own = {name: array for name, array in arrays.items() if name != RECENT}
            _write(_path(folder, tier, step), step, own, config, segments)
        except OSError as error:
            error.filename = error.filename or str(folder)  # orbax does not always say where
            raise
    if tier == FULL:
        for folder in folders:
            _verify(_path(folder, tier, step))
    for folder in folders:
        for old in _steps(folder, tier)[: -KEPT[tier]]:
            shutil.rmtree(old)
        if tier == FULL:
            _drop_segments(folder)


def written_before(folder: Path, step: int) -> np.ndarray | None:
    """Slots that each ring's cursor had passed at the newest full checkpoint before a step.

    Returns:
        int64 [rings]; None when there is none, so that all frames are still to be written.
    """
    segments = _segments_before(folder, step)
    return np.array(segments[-1][1]) if segments else None


def saved_steps(folder: Path, tier: str) -> list[int]:
    """Steps of the finished checkpoints of a tier, oldest first."""
    return [int(path.name) for path in _steps(folder, tier)]


def cut_back(folder: Path, step: int) -> None:
    """Deletes the checkpoints after `step`, and those half-written, as if they had never been."""
    for tier in (*KEPT, SEGMENTS):
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


def _write(
    final: Path,
    step: int,
    arrays: Arrays,
    config: Mapping[str, Any] | None = None,
    segments: Sequence[Segment] | None = None,
) -> None:
    """Writes beside, and renames when all of it is on the disk."""
    partial = final.with_name(final.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    (partial / ARRAYS).mkdir(parents=True)
    count = 0
    with ocp.PyTreeCheckpointer() as checkpointer:
        for piece in _pieces(arrays):
            _save_piece(checkpointer, (partial / ARRAYS / str(count)).absolute(), piece)
            count += 1
    described = {name: _describe(array) for name, array in arrays.items()}
    manifest = {"step": step, "config": config, "pieces": count, "arrays": described}
    if segments is not None:
        manifest["segments"] = segments
    (partial / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    sync_tree(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for folder in (final.parent, final.parent.parent):
        sync(folder)


def _save_segment(folder: Path, step: int, arrays: Arrays) -> list[Segment]:
    """Writes the new frames; returns what holds all frames there are, oldest first."""
    written, ring = arrays[WRITTEN], frames.ring_of(with_prefix(arrays, BUFFER))
    before = [
        segment
        for segment in _segments_before(folder, step)
        if frames.is_needed(np.array(segment[1]), written, ring)
    ]
    path = _path(folder, SEGMENTS, step)
    _write(path, step, {RECENT: arrays[RECENT], WRITTEN: written})
    _verify(path)
    return [*before, (step, written.tolist())]


def _segments_before(folder: Path, step: int) -> list[Segment]:
    """The segments of the newest full checkpoint before a step; none if it cannot be read."""
    paths = [path for path in _steps(folder, FULL) if int(path.name) < step]
    try:
        return _manifest(paths[-1]).get("segments", []) if paths else []
    except _UNREADABLE:
        return []


def _drop_segments(folder: Path) -> None:
    """Deletes the segments that no full checkpoint names."""
    try:
        manifests = [_manifest(path) for path in _steps(folder, FULL)]
    except _UNREADABLE:  # it may be one to fall back to: what it names is not known
        return
    named = {step for manifest in manifests for step, _ in manifest.get("segments", [])}
    for path in _steps(folder, SEGMENTS):
        if int(path.name) not in named:
            shutil.rmtree(path)


def _with_frames(path: Path, arrays: Arrays, segments: Sequence[Segment]) -> Arrays:
    """The arrays of a full checkpoint with the frames of its segments, read one at a time."""
    folder = path.parents[1]

    def read() -> Iterator[frames.Segment]:
        for step, written in segments:
            found = _load(_path(folder, SEGMENTS, step)).arrays
            if found[WRITTEN].tolist() != written:
                raise _altered(_path(folder, SEGMENTS, step))
            yield frames.Segment(found[RECENT], found[WRITTEN])

    packed = frames.assemble(with_prefix(arrays, BUFFER), read())
    return arrays | {f"{BUFFER}{name}": array for name, array in packed.items()}


def _save_piece(checkpointer: ocp.PyTreeCheckpointer, path: Path, piece: np.ndarray) -> None:
    """Writes some bytes; OSError when the disk is full.

    Space is asked for before, because threads of orbax print tracebacks when there is none.
    """
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if shutil.disk_usage(path.parent).free < piece.nbytes:
        raise full
    try:
        checkpointer.save(path, {BYTES: piece})
    except ValueError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise full from error
        raise


def _pieces(arrays: Arrays) -> Iterator[np.ndarray]:
    """The bytes of all arrays, in order, cut into pieces."""
    largest = max(SMALLEST_PIECE, sum(array.nbytes for array in arrays.values()) // PIECES)
    piece: list[np.ndarray] = []
    for array in arrays.values():
        for block in blocks(array, largest):
            if sum(other.nbytes for other in piece) + block.nbytes > largest and piece:
                yield np.concatenate(piece)
                piece = []
            piece.append(_bytes(block))
    if piece:
        yield np.concatenate(piece)


def _verify(path: Path) -> None:
    """Raises DamagedCheckpointError unless a checkpoint is what its manifest says."""
    try:
        manifest = _manifest(path)
        checksums = dict.fromkeys(manifest["arrays"], 0)
        for name, part in _array_parts(path, manifest):
            checksums[name] = zlib.crc32(part.data, checksums[name])
        intact = checksums == {name: crc for name, (_, _, crc) in manifest["arrays"].items()}
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not intact:
        raise _altered(path)


def _load(path: Path) -> Checkpoint:
    """Reads a checkpoint piece by piece, so that there are never two copies of its arrays."""
    try:
        manifest = _manifest(path)
        described = manifest["arrays"]
        arrays = {name: np.empty(shape, dtype) for name, (dtype, shape, _) in described.items()}
        filled = dict.fromkeys(arrays, 0)
        for name, part in _array_parts(path, manifest):
            start, filled[name] = filled[name], filled[name] + part.size
            _bytes(arrays[name])[start : filled[name]] = part
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if described != {name: _describe(array) for name, array in arrays.items()} or any(
        filled[name] != array.nbytes for name, array in arrays.items()
    ):
        raise _altered(path)
    says = {manifest["step"], int(path.name), int(arrays.get(CLOCK, manifest["step"]))}
    if len(says) > 1:
        raise DamagedCheckpointError(
            f"checkpoint {path} says it is of step {manifest['step']}, and its clock and name "
            f"{' and '.join(str(step) for step in sorted(says - {manifest['step']}))}"
        )
    if "segments" in manifest:
        try:
            arrays = _with_frames(path, arrays, manifest["segments"])
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error
    return Checkpoint(manifest["step"], arrays, manifest.get("config"))


def _manifest(path: Path) -> dict[str, Any]:
    return json.loads((path / MANIFEST).read_text(encoding="utf-8"))


def _array_parts(path: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The bytes of the arrays, in order, each in as many parts as pieces hold some of it."""
    sizes = {
        n: np.zeros(shape, dtype).nbytes for n, (dtype, shape, _) in manifest["arrays"].items()
    }
    todo = iter([(name, size) for name, size in sizes.items() if size])
    name, room = "", 0
    for piece in _read_pieces(path, manifest):
        while piece.size:
            if not room:
                name, room = next(todo, ("", 0))
            if not room:
                raise ValueError("more bytes than arrays")
            yield name, piece[:room]
            piece, room = piece[room:], max(room - piece.size, 0)


def _read_pieces(path: Path, manifest: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """The pieces as they were written; earlier versions gave orbax the arrays themselves."""
    folder = (path / ARRAYS).absolute()
    with ocp.PyTreeCheckpointer() as checkpointer:
        if "pieces" in manifest:
            for number in range(manifest["pieces"]):
                yield checkpointer.restore(folder / str(number))[BYTES]
            return
        arrays = checkpointer.restore(folder)
    for name, (dtype, shape, _) in manifest["arrays"].items():
        if 0 not in shape:  # those were left out
            # orbax casts dtypes silently.
            if str(arrays[name].dtype) != dtype:
                raise _altered(path)
            yield _bytes(np.ascontiguousarray(arrays[name]))


def _unreadable(path: Path, error: Exception) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"checkpoint {path} cannot be read ({type(error).__name__})")


def _altered(path: Path) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"checkpoint {path} is not what was written")


def _path(folder: Path, tier: str, step: int) -> Path:
    return folder / tier / f"{step:012d}"


def _steps(folder: Path, tier: str) -> list[Path]:
    """Finished checkpoints, oldest first; one in flight has a suffix and does not count."""
    return sorted(path for path in (folder / tier).glob("[0-9]*") if not path.suffix)


def _describe(array: np.ndarray) -> list[Any]:
    """An array's entry in the manifest: dtype, shape and checksum."""
    checksum = 0
    for block in blocks(array, SMALLEST_PIECE):
        checksum = zlib.crc32(_bytes(block).data, checksum)
    return [str(array.dtype), list(array.shape), checksum]


def _bytes(array: np.ndarray) -> np.ndarray:
    """A view of the bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8)


logging.getLogger("absl").setLevel(logging.ERROR)  # orbax narrates every save otherwise
