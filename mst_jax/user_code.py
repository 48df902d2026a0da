"""Names of a user's own code in settings.

A name in a setting is either short, one of ours, or dotted: `my_pkg.envs:drift` is the attribute
`drift` of the module `my_pkg.envs`. A dotted name is its own registry entry, so a run's config.json
describes itself, and every launcher, worker and fresh process finds the code.
"""

import importlib
import importlib.util
from typing import Any

from mst_jax.names import nearest


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
