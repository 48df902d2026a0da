"""What users give to launchers: paths, lists and numbers, checked before any work begins."""

import math
import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from mst_jax.names import nearest

flags.disclaim_key_flags()  # flags belong to the launcher that asks for them; --help lists those


def user_path(text: str) -> Path:
    """A path as a user writes it: `~` is the home folder; ValueError for an empty one."""
    if not text:
        raise ValueError("the path is empty; was a variable not set?")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: {error}") from error  # ~somebody who does not exist


def positive_integer(text: str) -> int:
    """A whole number of at least 1 that a device can count; ValueError for anything else."""
    value = int(text) if text.strip().isdecimal() else 0
    if not 1 <= value < 2**31:
        raise ValueError(f"{text!r} is not a whole number of at least 1 (and below 2**31)")
    return value


def finite_number(text: str) -> float:
    """A float that is neither infinite nor NaN; ValueError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def known_name(kind: str, name: str, known: Collection[str]) -> str:
    """The name, if it is known; the ValueError suggests the nearest ones."""
    if name not in known:
        raise ValueError(f"{kind} {name!r} is unknown: {nearest(name, known)}")
    return name


def one_of(known: Collection[str]) -> Callable[[str], str]:
    """`known_name` as a check of one part of a list."""
    return lambda name: known_name("name", name, known)


def define_path(name: str, default: str | None, text: str) -> flags.FlagHolder:
    """Defines a flag whose value is a `Path`, or None."""
    return flags.DEFINE(_Parser(user_path), name, default, text)


def define_list(
    name: str, default: Sequence[Any], item: Callable[[str], Any], text: str
) -> flags.FlagHolder:
    """Defines a flag for a list with commas; `item` turns each part into a value or refuses it."""

    def parts(value: str) -> list[Any]:
        return [item(part.strip()) for part in value.split(",")]

    return flags.DEFINE(_Parser(parts), name, ",".join(map(str, default)), text)


class _Parser(flags.ArgumentParser):
    """A function from text to value as absl wants it; defaults may be values already."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        self._function = function

    def parse(self, argument: Any) -> Any:
        return self._function(argument) if isinstance(argument, str) else argument


def require_writable(folder: Path) -> None:
    """Raises ValueError unless a folder can be made, or written to where it exists.

    It is tried, because permissions do not tell (root, /proc, read-only mounts, a full disk). Only
    the nearest folder that exists is touched, and nothing is left behind.
    """
    there = folder
    while not os.path.lexists(there):
        _require_usable(there)
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{there} is not a folder; name another place")
    try:
        with tempfile.TemporaryFile(dir=there, buffering=0) as file:
            file.write(b"\0")
    except OSError as error:
        raise ValueError(f"{there} cannot be written to ({error.strerror})") from error


def require_output(path: Path, suffixes: Collection[str] = ()) -> None:
    """Raises ValueError unless a file can be written; `suffixes` are those that it may have."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.absolute().parent} for {path.name}")
    _require_usable(path)
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{path} cannot be written to")
    if not path.exists():
        require_writable(path.parent)


def _require_usable(path: Path) -> None:
    """Raises ValueError when the system refuses a path as such, for its length say."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ValueError(f"{str(path)[:80]}... cannot be used ({error.strerror})") from error
