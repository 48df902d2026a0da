"""Plans: rules (path pattern -> regime) resolved against a parameter tree, in host integers.

A plan knows, for every masked leaf and every topology update, how many weights to keep and how many
to have afterwards. It touches no device.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from mst_jax.topology import allocation as allocations
from mst_jax.topology.mask_tree import PyTree, named_leaves
from mst_jax.topology.regime import Regime, Timing
from mst_jax.topology.tables import TextTable


class Table(NamedTuple):
    """Counts of one group of leaves that are rewired at the same steps.

    Row 0 is the initial topology, row u the u-th rewire; columns are leaves.

    Attributes:
        keep: int32 ``[updates + 1, leaves]``, active weights that survive.
        target: int32 ``[updates + 1, leaves]``, active weights afterwards.
    """

    keep: np.ndarray | jax.Array
    target: np.ndarray | jax.Array


@dataclass(frozen=True)
class Entry:
    """One leaf of a plan.

    Attributes:
        path: name of the leaf.
        shape: its shape.
        regime: the regime of its rule; None if the leaf is dense.
        drops: whether any update may drop weights.
        grows: whether any update may grow weights.
    """

    path: str
    shape: tuple[int, ...]
    regime: Regime | None = None
    drops: bool = False
    grows: bool = False


@dataclass(frozen=True)
class Group:
    """Leaves that share a timing, hence one conditional.

    Attributes:
        timing: when they are rewired; None never.
        entries: the leaves, one column of the table each.
        table: their counts, NumPy.
    """

    timing: Timing | None
    entries: tuple[Entry, ...]
    table: Table


@dataclass(frozen=True)
class Plan:
    """A resolved plan; make it with :func:`plan`, read it with ``print``.

    Attributes:
        dense: path -> shape of the leaves without a mask.
        groups: the masked leaves, by timing.
        names: path -> regime name, every leaf in tree order.
    """

    dense: Mapping[str, tuple[int, ...]]
    groups: tuple[Group, ...]
    names: Mapping[str, str]

    @property
    def tables(self) -> tuple[Table, ...]:
        """Counts of every group, as ``init`` takes them."""
        return tuple(group.table for group in self.groups)

    def entries(self) -> dict[str, tuple[int, int, Entry]]:
        """Masked leaves: path -> (group, column, entry)."""
        return {
            entry.path: (g, column, entry)
            for g, group in enumerate(self.groups)
            for column, entry in enumerate(group.entries)
        }

    def __str__(self) -> str:
        return str(self._text())

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        return self._text().html()

    def _text(self) -> TextTable:
        """Table of leaf, shape, regime, density and non-zeros (first -> last where they change)."""
        entries, rows, totals = self.entries(), [], np.zeros(3, np.int64)
        for path, name in self.names.items():
            if path in entries:
                g, column, entry = entries[path]
                counts, shape = self.groups[g].table.target[[0, -1], column], entry.shape
            else:
                shape = self.dense[path]
                counts = np.full(2, math.prod(shape))
            totals += [*counts, math.prod(shape)]
            rows.append((path, str(shape), name, *_span(counts, math.prod(shape))))
        rows.append(("total", "", "", *_span(totals[:2], totals[2])))
        return TextTable(("leaf", "shape", "regime", "density", "non-zeros"), rows, left=3)


def plan(params: PyTree, rules: Mapping[str, Regime]) -> Plan:
    """Resolves ordered rules against a parameter tree.

    Args:
        params: parameters of one seed, or their ``jax.ShapeDtypeStruct`` tree.
        rules: path pattern -> regime. A pattern is a regular expression that must match the whole
            path (``critic/q1/kernel``); the first match wins; leaves without a match are dense.
            The sparsity of a rule is that of all its eligible leaves together.

    Returns:
        The plan.

    Raises:
        ValueError: a pattern matches no path, or a request cannot be met.
    """
    shapes = {path: tuple(np.shape(leaf)) for path, leaf in named_leaves(params).items()}
    owners = _owners(list(shapes), rules)
    names = dict.fromkeys(shapes, "dense")
    blocks: list[tuple[Timing | None, list[Entry], Table]] = []
    for pattern, regime in rules.items():
        matched = [path for path in shapes if owners.get(path) == pattern]
        paths = _eligible(matched, shapes, regime)
        if regime.sparsity is None or not paths:
            continue
        names |= dict.fromkeys(paths, regime.name)
        counts = _counts(paths, [shapes[path] for path in paths], regime)
        before = np.concatenate([counts.target[:1], counts.target[:-1]])
        entries = [
            Entry(
                path,
                shapes[path],
                regime,
                drops=bool((counts.keep[1:, i] < before[1:, i]).any()),
                grows=bool((counts.keep[1:, i] < counts.target[1:, i]).any()),
            )
            for i, path in enumerate(paths)
        ]
        blocks.append((regime.timing, entries, counts))
    masked = {entry.path for _, entries, _ in blocks for entry in entries}
    return Plan(
        dense={path: shape for path, shape in shapes.items() if path not in masked},
        groups=tuple(_group(timing, blocks) for timing in dict.fromkeys(b[0] for b in blocks)),
        names=names,
    )


def _owners(paths: Sequence[str], rules: Mapping[str, Regime]) -> dict[str, str]:
    """Path -> the first pattern that matches it."""
    owners: dict[str, str] = {}
    for pattern in rules:
        matched = [path for path in paths if re.fullmatch(pattern, path)]
        if not matched:
            near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            raise ValueError(
                f"Rule {pattern!r} matches no parameter; the nearest paths are {near}."
            )
        for path in matched:
            owners.setdefault(path, pattern)
    return owners


def _eligible(
    paths: Sequence[str], shapes: Mapping[str, tuple[int, ...]], regime: Regime
) -> list[str]:
    axes = 2 if regime.leaves == "kernels" else 1
    chosen = [path for path in paths if len(shapes[path]) >= axes]
    natural = sorted(chosen, key=_natural)
    skipped = natural[: int(regime.dense_first)] + natural[-1:] * int(regime.dense_last)
    return [path for path in chosen if path not in skipped]


def _natural(path: str) -> list[int | str]:
    """Sort key in which ``layer_2`` comes before ``layer_10``."""
    parts = re.split(r"(\d+)", path)  # text and digits alternate
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _counts(paths: list[str], shapes: list[tuple[int, ...]], regime: Regime) -> Table:
    """Keep and target counts of every update, float64 and integers only."""
    steps = [0, *(regime.timing.steps if regime.timing else ())]
    groups = np.array([regime.structure.groups(shape) for shape in shapes])
    sizes = np.array([math.prod(shape) for shape in shapes])
    target = _targets(paths, shapes, regime, steps, groups.tolist())
    keep = target.copy()
    for row, step in enumerate(steps[1:], start=1):
        base = np.minimum(target[row - 1], target[row])
        growth = target[row] - base
        drop = np.floor(regime.drop(step) * base) + np.floor(regime.prune_ratio * growth)
        drop = np.where(target[row] == sizes, 0, np.minimum(drop, base))
        keep[row] = base - drop // groups * groups
    return Table(keep.astype(np.int32), target.astype(np.int32))


def _targets(
    paths: list[str],
    shapes: list[tuple[int, ...]],
    regime: Regime,
    steps: list[int],
    groups: list[int],
) -> np.ndarray:
    """Budgets after every update, int64 ``[updates + 1, leaves]``."""
    levels = [float(regime.sparsity(step)) for step in steps]
    if regime.timing is not None:
        # The last update completes the schedule even if the interval does not divide its length.
        levels[-1] = float(regime.sparsity(regime.timing.end))
    rows: list[list[int]] = []
    for row, level in enumerate(levels):
        if row and level == levels[row - 1]:
            rows.append(rows[-1])
            continue
        previous, growing = (rows[-1], level < levels[row - 1]) if row else (None, False)
        rows.append(
            allocations.budgets(regime.allocation, paths, shapes, level, groups, previous, growing)
        )
    return np.array(rows, np.int64)


def _group(
    timing: Timing | None, blocks: Sequence[tuple[Timing | None, list[Entry], Table]]
) -> Group:
    mine = [(entries, counts) for when, entries, counts in blocks if when == timing]
    return Group(
        timing,
        tuple(entry for entries, _ in mine for entry in entries),
        Table(
            *(
                np.concatenate(columns, axis=1)
                for columns in zip(*(c for _, c in mine), strict=True)
            )
        ),
    )


def _span(counts: np.ndarray, size: int) -> tuple[str, str]:
    first, last = int(counts[0]), int(counts[1])
    if first == last:
        return f"{first / max(size, 1):.4f}", f"{first:,}"
    return (
        f"{first / max(size, 1):.4f} -> {last / max(size, 1):.4f}",
        f"{first:,} -> {last:,}",
    )
