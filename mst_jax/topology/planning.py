"""Plans: rules (path pattern -> regime) resolved against a parameter tree, in host integers.

A plan knows, for every masked leaf and every topology update, how many weights to keep and how many
to have afterwards; where scores decide what each leaf has, it knows so for all of them together. It
touches no device.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mst_jax.topology import allocation as allocations
from mst_jax.topology import compact_plan, structures
from mst_jax.topology.count_tables import Table, Totals, drop_at, table_of, totals_of
from mst_jax.topology.mask_tree import PyTree, named_leaves, natural
from mst_jax.topology.regime import Regime, Sharing, Timing
from mst_jax.topology.structures import Structure, Tied
from mst_jax.topology.tables import TextTable


@dataclass(frozen=True)
class LeafPlan:
    """One leaf of a plan.

    Attributes:
        path: name of the leaf.
        shape: its shape.
        regime: the regime of its rule, unstructured where its structure does not fit the leaf.
        drops: whether any update may drop weights.
        grows: whether any update may grow weights.
        remarks: what a user may not expect: a structure that does not fit, a topology that the
            regime would move and never can.
    """

    path: str
    shape: tuple[int, ...]
    regime: Regime
    drops: bool = False
    grows: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def compact(self) -> bool:
        """Whether the leaf is in compact storage."""
        return self.regime.storage == "compact"

    @property
    def columns(self) -> int:
        """Neighbouring outputs that share their inputs, of a leaf in compact storage."""
        return self.regime.structure.unit


Block = tuple[Timing | None, list[LeafPlan], Table | Totals]  # what one rule adds to a plan


@dataclass(frozen=True)
class Group:
    """Leaves that share a timing, hence one conditional; the leaves of one rule, if they share.

    Attributes:
        timing: when they are rewired; None never.
        entries: the leaves, one column of the table each.
        table: their counts, NumPy.
    """

    timing: Timing | None
    entries: tuple[LeafPlan, ...]
    table: Table | Totals

    @property
    def sharing(self) -> Sharing | None:
        """How the leaves share their counts by score; None where the plan has every leaf's."""
        return self.entries[0].regime.sharing if isinstance(self.table, Totals) else None


@dataclass(frozen=True)
class Plan:
    """A resolved plan; make it with `plan`, read it with ``print``.

    Attributes:
        dense: path -> shape of the leaves without a mask.
        groups: the masked leaves, by timing.
        names: path -> regime name, every leaf in tree order.
        tied: path -> axis whose entries are parts of one weight, of the leaves that have one;
            counted from the last, so that axes of seeds before it do not matter.
    """

    dense: Mapping[str, tuple[int, ...]]
    groups: tuple[Group, ...]
    names: Mapping[str, str]
    tied: Mapping[str, int] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[Table | Totals, ...]:
        """Counts of every group, as ``init`` takes them."""
        return tuple(group.table for group in self.groups)

    @property
    def reads_activity(self) -> bool:
        """Whether ``update`` must be given the activity of neurons."""
        return any(entry.regime.reads_activity for g in self.groups for entry in g.entries)

    @property
    def reads_loss(self) -> bool:
        """Whether ``update`` must be given the loss: where compact storage moves."""
        entries = [entry for group in self.groups for entry in group.entries]
        return any(entry.compact and (entry.drops or entry.grows) for entry in entries)

    def fan_in(self, path: str) -> int:
        """How many inputs each tile of a leaf in compact storage has."""
        group, column, entry = self.entries()[path]
        return int(self.groups[group].table.target[0, column]) // entry.shape[-1]

    def entries(self) -> dict[str, tuple[int, int, LeafPlan]]:
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
            by_score = False
            if path in entries:
                g, column, entry = entries[path]
                counts = np.asarray(self.groups[g].table.target)[[0, -1], column]
                shape = entry.shape
                name += _note(entry)
                sharing = self.groups[g].sharing
                by_score = sharing is not None and sharing.growth != "plan"
            else:
                shape = self.dense[path]
                counts = np.full(2, math.prod(shape))
            totals += [*counts, math.prod(shape)]
            cells = _span(counts[[0, 0]] if by_score else counts, math.prod(shape))
            if by_score:
                cells = tuple(f"{cell} -> by score" for cell in cells)
            rows.append((path, str(shape), name, *cells))
        rows.append(("total", "", "", *_span(totals[:2], totals[2])))
        return TextTable(("leaf", "shape", "regime", "density", "non-zeros"), rows, left=3)


def plan(
    params: PyTree, rules: Mapping[str, Regime], tied: Mapping[str, int] | None = None
) -> Plan:
    """Resolves ordered rules against a parameter tree.

    Args:
        params: parameters of one seed, or their ``jax.ShapeDtypeStruct`` tree.
        rules: path pattern -> regime. A pattern is a regular expression that must match the whole
            path (``critic/q1/kernel``); the first match wins; leaves without a match are dense.
            The sparsity of a rule is that of all its eligible leaves together.
        tied: path pattern -> axis of the leaves it matches whose entries are parts of one weight
            (its mean and its scale), so that they share one decision whatever the regime; see
            `mst_jax.topology.tied`.

    Returns:
        The plan.

    Raises:
        TypeError: rules that are not a mapping from patterns to regimes.
        ValueError: a pattern matches no path or is no regular expression, two leaves have one path,
            a leaf has no such axis, or a request cannot be met.
    """
    _require_rules(rules)
    shapes = {path: tuple(np.shape(leaf)) for path, leaf in named_leaves(params).items()}
    ties = _ties(shapes, tied or {})
    owners = _owners(list(shapes), rules)
    names = dict.fromkeys(shapes, "dense")
    blocks: list[Block] = []
    for pattern, regime in rules.items():
        matched = [path for path in shapes if owners.get(path) == pattern]
        paths = _eligible(matched, shapes, ties, regime)
        if regime.sparsity is None or not paths:
            continue
        names |= dict.fromkeys(paths, regime.name)
        own = {path: shapes[path] for path in paths}
        if regime.storage == "compact":
            compact_plan.require_linear(own, ties)
        wanted = {
            path: _tied(regime.structure, shape, ties.get(path)) for path, shape in own.items()
        }
        regimes = _fitted(pattern, regime, own, wanted)
        counts = totals_of(regime, own) if regime.sharing else table_of(regime, own, regimes)
        if regime.storage == "compact":
            regimes = compact_plan.stored(regime, regimes, own, counts)
        entries = _entries(regime, own, wanted, regimes, counts)
        blocks.append((regime.timing, entries, counts))
    masked = {entry.path for _, entries, _ in blocks for entry in entries}
    return Plan(
        dense={path: shape for path, shape in shapes.items() if path not in masked},
        groups=_groups(blocks),
        names=names,
        tied=ties,
    )


def _require_rules(rules: Mapping[str, Regime]) -> None:
    """Raises in one line unless the rules are a mapping from patterns to regimes."""
    if not isinstance(rules, Mapping):
        raise TypeError(
            f"rules must be a mapping {{pattern: regime}}, got a {type(rules).__name__}; its order "
            f"decides, as that of a dict does"
        )
    for pattern, regime in rules.items():
        allocations.pattern_of(pattern)
        if not isinstance(regime, Regime):
            raise TypeError(
                f"the regime of rule {pattern!r} must be made by a call such as "
                f"topology.static(0.5), got {regime!r}"
            )


def _ties(shapes: Mapping[str, tuple[int, ...]], tied: Mapping[str, int]) -> dict[str, int]:
    """Path -> tied axis, counted from the last."""
    for pattern in tied:
        allocations.pattern_of(pattern)
    ties = {}
    for path, pattern in _owners(list(shapes), tied, "tied leaf").items():
        shape, axis = shapes[path], tied[pattern]
        if len(shape) < 2 or not -len(shape) <= axis < len(shape):
            raise ValueError(
                f"tied leaf {pattern!r}: {path!r} of shape {shape} cannot be tied along axis {axis}"
            )
        ties[path] = axis % len(shape) - len(shape)
    return ties


def _tied(structure: Structure, shape: tuple[int, ...], axis: int | None) -> Structure:
    """A rule's structure for a leaf, tied as the leaf is."""
    if axis is None:
        return structure
    if isinstance(structure, Tied) and (structure.axis - axis) % len(shape) == 0:
        return structure
    return structures.tied(axis, structure)


def _owners(paths: Sequence[str], patterns: Iterable[str], what: str = "rule") -> dict[str, str]:
    """Path -> the first pattern that matches it."""
    owners: dict[str, str] = {}
    for pattern in patterns:
        matched = [path for path in paths if re.fullmatch(pattern, path)]
        if not matched:
            near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            raise ValueError(
                f"{what} {pattern!r} matches no parameter; the nearest paths are {near}"
            )
        for path in matched:
            owners.setdefault(path, pattern)
    return owners


def _eligible(
    paths: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    ties: Mapping[str, int],
    regime: Regime,
) -> list[str]:
    axes = 2 if regime.leaves == "kernels" else 1
    chosen = [
        path
        for path in paths
        if len(shapes[path]) - (path in ties) >= axes and math.prod(shapes[path])
    ]
    in_order = sorted(chosen, key=natural)
    skipped = in_order[: int(regime.dense_first)] + in_order[-1:] * int(regime.dense_last)
    return [path for path in chosen if path not in skipped]


def _fitted(
    pattern: str,
    regime: Regime,
    shapes: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, Structure],
) -> dict[str, Regime]:
    """Path -> the regime, without its structure where that does not fit the leaf."""
    if not any(wanted[path].fits(shape) for path, shape in shapes.items()):
        path, shape = next(iter(shapes.items()))
        raise ValueError(
            f"the structure {regime.structure.name} fits no leaf of rule {pattern!r}, for example "
            f"{path!r} of shape {shape}: choose another structure"
        )

    def fitted(path: str, shape: tuple[int, ...], wanted: Structure) -> Regime:
        loose = structures.tied(wanted.axis) if isinstance(wanted, Tied) else Structure()
        try:
            if wanted.fits(shape):
                return replace(regime, structure=wanted)
            return replace(regime, structure=loose, storage="masked")
        except ValueError as error:
            raise ValueError(
                f"{path!r} has a tied axis and {regime.name}: {error}; choose another regime for it"
            ) from error

    return {path: fitted(path, shape, wanted[path]) for path, shape in shapes.items()}


def _note(entry: LeafPlan) -> str:
    """What the printed plan says of a leaf's structure and storage."""
    if entry.regime.structure == Structure() and not entry.remarks:
        return ""
    stored = ["compact"] if entry.compact else []
    return f" ({': '.join([entry.regime.structure.name, *stored, *entry.remarks])})"


def _remarks(rule: Regime, own: Regime, fitting: bool, unit: int, stuck: bool) -> tuple[str, ...]:
    fallen = [] if fitting else [f"{rule.structure.name} does not fit"]
    if own.storage != rule.storage:
        fallen.append("masked storage")
    what = "weight" if unit == 1 else f"unit of {unit} weights"
    never = [f"never moves, every drop is less than one {what}"] if stuck else []
    return (*fallen, *never)


def _entries(
    rule: Regime,
    shapes: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, Structure],
    regimes: Mapping[str, Regime],
    counts: Table | Totals,
) -> list[LeafPlan]:
    """The leaves of a rule, and whether any update drops or grows some of their weights."""
    before = np.concatenate([counts.target[:1], counts.target[:-1]])
    after = counts.target
    if isinstance(counts, Totals):
        before, after = (x.sum(axis=1) for x in (before, after))
    drops = np.broadcast_to((counts.keep[1:] < before[1:]).any(axis=0), len(shapes))
    grows = np.broadcast_to((counts.keep[1:] < after[1:]).any(axis=0), len(shapes))
    steps = rule.timing.steps if rule.timing else ()
    moving = any(drop_at(rule, step) > 0 for step in steps)
    sizes = np.array([math.prod(shape) for shape in shapes.values()])
    stuck = moving & ~drops & (counts.target < sizes).any(axis=0)
    return [
        LeafPlan(
            path,
            shape,
            regimes[path],
            drops=bool(drops[i]),
            grows=bool(grows[i]),
            remarks=_remarks(
                rule,
                regimes[path],
                regimes[path].structure == wanted[path],
                regimes[path].structure.unit_of(shape),
                bool(stuck[i]),
            ),
        )
        for i, (path, shape) in enumerate(shapes.items())
    ]


def _groups(blocks: Sequence[Block]) -> tuple[Group, ...]:
    """The blocks joined by timing; a rule whose leaves share its counts stays by itself."""
    keys = [(i if isinstance(b[2], Totals) else None, b[0]) for i, b in enumerate(blocks)]
    return tuple(
        _group(key[1], [block for own, block in zip(keys, blocks, strict=True) if own == key])
        for key in dict.fromkeys(keys)
    )


def _group(timing: Timing | None, blocks: Sequence[Block]) -> Group:
    entries = tuple(entry for _, own, _ in blocks for entry in own)
    tables = [table for _, _, table in blocks]
    if isinstance(tables[0], Totals):
        return Group(timing, entries, tables[0])
    columns = zip(*tables, strict=True)
    return Group(timing, entries, Table(*(np.concatenate(own, axis=1) for own in columns)))


def _span(counts: np.ndarray, size: int) -> tuple[str, str]:
    first, last = int(counts[0]), int(counts[1])
    if first == last:
        return f"{first / max(size, 1):.4f}", f"{first:,}"
    return (
        f"{first / max(size, 1):.4f} -> {last / max(size, 1):.4f}",
        f"{first:,} -> {last:,}",
    )
