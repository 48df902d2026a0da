"""Topologies as tables: text at the prompt, HTML in a notebook."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from mst_jax.topology.compact import densified
from mst_jax.topology.mask_tree import PyTree, expand, is_sentinel, named_leaves


@dataclass(frozen=True, repr=False)
class TextTable:
    """A table that a prompt shows as plain text and a notebook as HTML.

    Attributes:
        header: names of the columns.
        rows: cells, as text.
        left: how many of the first columns are aligned left; the others are aligned right.
    """

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: int = 2

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.ljust(width) if i < self.left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in lines
        ]
        return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])

    __repr__ = __str__

    def html(self) -> str:
        """The table as an HTML element."""

        def line(cells: tuple[str, ...], tag: str) -> str:
            sides = ("left" if i < self.left else "right" for i in range(len(cells)))
            return "".join(
                f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            )

        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows)
        head = f"<tr>{line(self.header, 'th')}</tr>"
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"

    _repr_html_ = html  # what Jupyter shows


def summary(params: PyTree, masks: PyTree) -> TextTable:
    """Readable table of a topology: leaf, shape, density, non-zeros, with a line of totals.

    Args:
        params: parameter tree (arrays or ``ShapeDtypeStruct``), one seed.
        masks: its mask tree, concrete.

    Returns:
        The table; ``str`` or ``print`` gives text of several lines.

    Raises:
        ValueError: the masks are not those of these parameters.
    """
    params = densified(params)
    named_masks = named_leaves(expand(densified(masks), params), is_leaf=is_sentinel)
    rows, active, total = [], 0, 0
    for path, leaf in named_leaves(params).items():
        mask, size = named_masks[path], math.prod(np.shape(leaf))
        nonzeros = size if is_sentinel(mask) else int(np.count_nonzero(np.asarray(mask)))
        active, total = active + nonzeros, total + size
        share = "dense" if is_sentinel(mask) else f"{nonzeros / max(size, 1):.4f}"
        rows.append((path, str(tuple(np.shape(leaf))), share, f"{nonzeros:,}", f"{size:,}"))
    rows.append(("total", "", f"{active / max(total, 1):.4f}", f"{active:,}", f"{total:,}"))
    return TextTable(("leaf", "shape", "density", "non-zeros", "parameters"), rows)


class LeafDifference(NamedTuple):
    """What became of one leaf's weights, in weights.

    Attributes:
        kept: active before and after.
        dropped: active before only.
        grown: active after only.
    """

    kept: int
    dropped: int
    grown: int


class Difference(dict[str, LeafDifference]):
    """Path -> `LeafDifference`; shown as a table with a line of totals."""

    @property
    def table(self) -> TextTable:
        """Leaf, kept, dropped, grown, and the share of the old active weights that was kept."""
        total = LeafDifference(*np.sum([(0, 0, 0), *self.values()], axis=0).tolist())
        rows = [
            (path, *(f"{count:,}" for count in leaf), _share(leaf.kept, leaf.kept + leaf.dropped))
            for path, leaf in [*self.items(), ("total", total)]
        ]
        return TextTable(("leaf", "kept", "dropped", "grown", "survived"), rows, left=1)

    def __repr__(self) -> str:
        return str(self.table)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        return self.table.html()


def diff(before: PyTree, after: PyTree) -> Difference:
    """What changed between two topologies of the same parameters.

    Args:
        before: mask tree, concrete; any leading axes (they are counted together).
        after: mask tree with the same leaves and shapes.

    Returns:
        Path -> kept, dropped and grown weights; prints as a table. A leaf that is dense in one of
        the two counts as all active there; one that is dense in both is left out.

    Raises:
        ValueError: the trees have other leaves or shapes.
    """
    old = named_leaves(densified(before), is_leaf=is_sentinel)
    new = named_leaves(densified(after), is_leaf=is_sentinel)
    if old.keys() != new.keys():
        odd = sorted(old.keys() ^ new.keys())[0]
        raise ValueError(f"the two topologies have different leaves, for example {odd!r}")
    found = Difference()
    for path, one in old.items():
        other = new[path]
        if is_sentinel(one) and is_sentinel(other):
            continue
        one, other = _filled(one, other), _filled(other, one)
        if one.shape != other.shape:
            raise ValueError(
                f"{path!r} has shape {one.shape} before and {other.shape} after: compare "
                f"topologies of the same network and the same seeds"
            )
        found[path] = LeafDifference(
            *(int(np.count_nonzero(m)) for m in (one & other, one & ~other, other & ~one))
        )
    return found


def _filled(mask: PyTree, like: PyTree) -> np.ndarray:
    """The mask on the host; where the leaf is dense, all True."""
    return np.ones(like.shape, bool) if is_sentinel(mask) else np.asarray(jax.device_get(mask))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
