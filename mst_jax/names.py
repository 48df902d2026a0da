"""Names that do not exist: which of the known ones may have been meant."""

import difflib
from collections.abc import Iterable

MOST = 30  # names in a message


def nearest(name: str, known: Iterable[str]) -> str:
    """How to go on after an unknown name: `did you mean a or b?`, or all names if none is near."""
    known = list(known)
    shown = ", ".join(known[:MOST]) + (
        f" and {len(known) - MOST} more" if len(known) > MOST else ""
    )
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {shown}"
