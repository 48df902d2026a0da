"""The NumPy form: a zipped .npz, and beside it the program that plays it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mst_jax.export import play_policy
from mst_jax.export.policy_file import PolicyFile

PLAYER = Path(play_policy.__file__)  # the very file that this package plays with


def write_npz(file: PolicyFile, path: Path) -> None:
    """Writes dense arrays, zeros where masked: zipped they take little more than a packed form."""
    with path.open("wb") as target:
        arrays: dict[str, Any] = dict(file.arrays)
        np.savez_compressed(target, description=json.dumps(file.description), **arrays)


def require_player_place(folder: Path, overwrite: bool) -> None:
    """Raises ValueError if another file has the program's name and is not to be replaced."""
    path = folder / PLAYER.name
    if path.exists() and path.read_bytes() != PLAYER.read_bytes() and not overwrite:
        raise ValueError(
            f"{path} is another program, or of another version: set overwrite, or choose another "
            "folder"
        )


def write_player(folder: Path) -> Path:
    """Writes the program beside a policy."""
    path = folder / PLAYER.name
    shutil.copyfile(PLAYER, path)
    return path
