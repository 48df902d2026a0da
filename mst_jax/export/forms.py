"""The forms of an exported policy by name, and writing one: whole or not at all."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from mst_jax.export import c, play_policy
from mst_jax.export.npz import require_player_place, write_npz, write_player
from mst_jax.export.policy_file import DTYPES, PolicyFile
from mst_jax.names import nearest


class Form(NamedTuple):
    """How a policy may be written.

    Attributes:
        write: makes the file.
        operations: names of those that it knows.
        dtypes: that its weights may have.
    """

    write: Callable[[PolicyFile, Path], None]
    operations: Collection[str]
    dtypes: tuple[str, ...]


FORMS = {
    "npz": Form(write_npz, play_policy.OPERATIONS, DTYPES),
    "c": Form(c.write_c, [kind.__name__ for kind in c.CALLS], ("float32",)),
}


def form_of(path: Path, form: str | None = None, dtype: str = "float32") -> str:
    """The form that a path asks for by its suffix, or the one that is named.

    Raises:
        ValueError: there is no such form, the suffix is of another one, or the form has no weights
            of this dtype.
    """
    suffix = path.suffix.removeprefix(".")
    if form is None and suffix not in FORMS:
        raise ValueError(f"{path} must end in .{' or .'.join(FORMS)}")
    form = form or suffix
    if form not in FORMS:
        raise ValueError(f"form {form!r} is unknown: {nearest(form, FORMS)}")
    if suffix != form:
        raise ValueError(f"{path} does not end in .{form}, as a policy of form {form!r} does")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown: {nearest(dtype, DTYPES)}")
    if dtype not in FORMS[form].dtypes:
        raise ValueError(f"a .{form} file has no {dtype}: choose float32, or .npz")
    return form


def require_place(path: Path, overwrite: bool) -> None:
    """Raises ValueError unless a file may be written here."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: choose another name, or set overwrite")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.absolute().parent} for {path.name}")


def require_known(file: PolicyFile, form: str) -> None:
    """Raises ValueError unless a form knows all operations of a policy."""
    unknown = {name for name, _ in file.description["operations"]} - set(FORMS[form].operations)
    if unknown:
        raise ValueError(f"a .{form} file has no {', '.join(sorted(unknown))}: choose another form")


def write_policy(file: PolicyFile, path: Path, form: str, *, overwrite: bool = False) -> list[Path]:
    """Writes a policy beside its place and then puts it there.

    Returns:
        The files that were written: for `npz` also the program that plays it.

    Raises:
        ValueError: another file has the name of that program, and `overwrite` is not set.
        OSError: a file cannot be written.
    """
    if form == "npz":
        require_player_place(path.parent, overwrite)
    partial = path.with_name(f".{path.name}.partial")
    try:
        FORMS[form].write(file, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return [path, write_player(path.parent)] if form == "npz" else [path]
