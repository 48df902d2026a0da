"""The forms of an exported policy by name, and writing one: whole or not at all."""

from collections.abc import Callable
from pathlib import Path

from mst_jax.export.c import write_c
from mst_jax.export.npz import write_npz, write_player
from mst_jax.export.policy_file import PolicyFile
from mst_jax.names import nearest

FORMS: dict[str, Callable[[PolicyFile, Path], None]] = {"npz": write_npz, "c": write_c}


def form_of(path: Path, form: str | None) -> str:
    """The form that a path asks for by its suffix, or the one that is named.

    Raises:
        ValueError: there is no such form, or the suffix is of another one.
    """
    suffix = path.suffix.removeprefix(".")
    if form is None:
        if suffix not in FORMS:
            raise ValueError(f"{path} must end in .{' or .'.join(FORMS)}")
        return suffix
    if form not in FORMS:
        raise ValueError(f"form {form!r} is unknown: {nearest(form, FORMS)}")
    if suffix != form:
        raise ValueError(f"{path} does not end in .{form}, as a policy of form {form!r} does")
    return form


def write_policy(file: PolicyFile, path: Path, form: str) -> list[Path]:
    """Writes a policy beside its place and then puts it there.

    Returns:
        The files that were written: for `npz` also the program that plays it.

    Raises:
        ValueError: the form does not support the policy.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        FORMS[form](file, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return [path, write_player(path.parent)] if form == "npz" else [path]
