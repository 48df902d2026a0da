"""Names: which of the known ones an unknown one may mean, and names of a user's own code.

A name in a setting is either short, one of ours, or dotted: `my_pkg.envs:drift` is the attribute
`drift` of the module `my_pkg.envs`. A dotted name is its own registry entry, so a run's config.json
describes itself, and every launcher, worker and fresh process finds the code.
"""

import difflib
import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

MOST = 30  # names in a message


def nearest(name: str, known: Iterable[str]) -> str:
    """How to go on after an unknown name: `did you mean a or b?`, or all names if none is near."""
    known = list(known)
    shown = ", ".join(known[:MOST]) + (
        f" and {len(known) - MOST} more" if len(known) > MOST else ""
    )
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {shown}"


def is_dotted(name: str) -> bool:
    """Whether a name that is none of ours may be a user's: its module has a dot, or exists."""
    module = name.partition(":")[0]
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return False
    return len(parts) > 1 or importlib.util.find_spec(module) is not None


def resolve(kind: str, name: str) -> Any:
    """What a dotted name stands for: a module, or with `:attribute` something in it.

    Importing a module runs it: whoever loads a stranger's run imports what its settings name.

    Args:
        kind: what it is, for messages, such as `task`.
        name: `package.module` or `package.module:attribute`.

    Raises:
        ValueError: it cannot be imported or holds no such attribute, in one line.
    """
    path, colon, attribute = name.partition(":")
    try:
        module = importlib.import_module(path)
    except Exception as error:  # whatever a user's module raises
        missing = isinstance(error, ModuleNotFoundError) and f"{path}.".startswith(f"{error.name}.")
        why = (
            f"there is no module {error.name!r}; is its folder the current one, or on PYTHONPATH?"
            if missing
            else f"importing {path} fails: {type(error).__name__}: {one_line(error)}"
        )
        raise ValueError(f"{kind} {name!r}: {why}") from error
    if not colon:
        return module
    if not hasattr(module, attribute):
        known = [found for found in vars(module) if not found.startswith("_")]
        raise ValueError(
            f"{kind} {name!r}: {path} has no {attribute!r}: {nearest(attribute, known)}"
        )
    return getattr(module, attribute)


def one_line(error: BaseException) -> str:
    """The text of an error without its line breaks."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
