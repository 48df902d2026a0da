"""What is where in a run folder, and whether the run in it is blank, begun or finished."""

import os
from collections.abc import Sequence
from pathlib import Path

from mst_jax.runs.files import PARTIAL, replace_text
from mst_jax.runs.lock import GUARD, LOCK

CONFIG, VERSIONS, PROGRAM, TASK = "config.json", "versions.json", "program.json", "task.json"
FINGERPRINT = "fingerprint.txt"
METRICS = "metrics.jsonl"
INITIAL_TOPOLOGY = "topology_initial.npz"
FILMS = ("film.mp4", "film.gif")  # of an episode, where one was filmed
CHECKPOINTS, TOPOLOGY, COVARIANCES = "checkpoints", "topology", "diagnostics"  # folders


class RunExistsError(ValueError):
    """A run cannot begin where there is one; `folder` is it, `other` what to choose another of."""

    def __init__(self, folder: Path, other: str = "folder") -> None:
        super().__init__(f"{folder} exists: resume that run, or choose another {other}")
        self.folder = folder


def as_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder that a user names; `~` stands for their own.

    Raises:
        TypeError: it is neither text nor a path.
        ValueError: it is empty.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder is {folder!r}, not a str or a Path")
    if not os.fspath(folder).strip():
        raise ValueError("folder is empty: name the folder of one run")
    return Path(folder).expanduser()


def seed_folder(folder: Path, seed: int) -> Path:
    """Where the metrics of one seed are."""
    return folder / f"seed_{seed}"


def seed_folders(folder: Path, seeds: Sequence[int]) -> list[Path]:
    """Where the metrics of several seeds are."""
    return [seed_folder(folder, seed) for seed in seeds]


def covariance_file(folder: Path, step: int) -> Path:
    """Where the gradient covariances of a step are."""
    return folder / COVARIANCES / f"covariance_{step}.npz"


def fingerprint_of(folder: Path) -> str | None:
    """What a finished run wrote last; None when the run is not finished."""
    path = folder / FINGERPRINT
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return text if len(text) == 64 else None


def is_finished(folder: Path) -> bool:
    """Whether a run wrote its fingerprint, which it does last."""
    return fingerprint_of(folder) is not None


def finish(folder: Path, digest: str) -> None:
    """Makes a run a finished one."""
    replace_text(folder / FINGERPRINT, digest + "\n")


def is_blank(folder: Path) -> bool:
    """Whether a run may begin in a folder: nothing is there but what a killed process left.

    A process that was killed before it wrote config.json did nothing else of worth.
    """
    if not folder.exists():
        return True
    whole = {VERSIONS, PROGRAM, TASK}
    left = {LOCK, GUARD, *whole, *(name + PARTIAL for name in (CONFIG, *whole))}
    return folder.is_dir() and all(
        path.name in left or (path.name == CONFIG and path.stat().st_size == 0)
        for path in folder.iterdir()
    )
