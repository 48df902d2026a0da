"""JSON files of runs and studies, which people edit and copy: what is wrong is told in one line."""

import json
from pathlib import Path
from typing import Any

from mst_jax.names import kind_of, with_article


def read_json(path: Path, kind: type = dict) -> Any:
    """What a file holds.

    Args:
        path: the file.
        kind: `dict` or `list`.

    Raises:
        ValueError: the file is not JSON, or holds something else; the message names it.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, a billion brackets
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(found, kind):
        raise ValueError(
            f"{path} is damaged: it holds {kind_of(found)}, not {with_article(kind.__name__)}"
        )
    return found
