"""Names in messages and settings: nested ones with dots, what an unknown one may have meant."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
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


def with_article(noun: str) -> str:
    """`an int`, `a str`."""
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def kind_of(value: Any) -> str:
    """The type of a value with its article."""
    return with_article(type(value).__name__)


def dotted(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings or dataclasses as one dictionary: `{"critic.hidden": 512, ...}`.

    Args:
        values: a mapping with names as keys, or a dataclass.
        prefix: what every name begins with.
    """
    if dataclasses.is_dataclass(values):
        values = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping) or dataclasses.is_dataclass(value)
        flat |= dotted(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat
