"""One self-contained HTML page of tables, pictures and films: no script, nothing from a network."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mst_jax.topology import TextTable

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
       color: #111; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
img, video { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { padding: 0.15rem 0.8rem; border-bottom: 1px solid #ccc; }
td { font-variant-numeric: tabular-nums; }
@media print { section { break-inside: avoid; } }
"""


KINDS = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


class Picture(NamedTuple):
    """A picture or film (`KINDS`) and what it shows, in a few plain sentences."""

    title: str
    text: str
    path: Path


def make_page(
    title: str,
    tables: Mapping[str, TextTable],
    pictures: Sequence[Picture],
    absent: Mapping[str, str],
) -> str:
    """The page as text; images are inside it.

    Args:
        title: heading of the page.
        tables: heading -> table; the first one is open, the others unfold.
        pictures: in the order in which they are shown.
        absent: title of a picture that could not be drawn -> why.

    Returns:
        HTML.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for number, (heading, table) in enumerate(tables.items()):
        state = " open" if number == 0 else ""
        name = f"<summary>{html.escape(heading)}</summary>"
        parts.append(f"<details{state}>{name}{table.html()}</details>")
    parts += [_section(picture) for picture in pictures]
    if absent:
        lines = "".join(
            f"<li>{html.escape(name)}: {html.escape(why)}</li>" for name, why in absent.items()
        )
        parts.append(f"<h2>Not drawn</h2><ul>{lines}</ul>")
    head = (
        f'<meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style>'
    )
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _section(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    title, text = html.escape(picture.title), html.escape(picture.text)
    kind = KINDS[picture.path.suffix]
    image = f'<img alt="{title}" src="data:{kind};base64,{data}">'
    if kind.startswith("video"):
        image = f'<video controls loop muted src="data:{kind};base64,{data}"></video>'
    return f"<section><h2>{title}</h2><p>{text}</p>{image}</section>"
