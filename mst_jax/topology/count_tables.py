"""Counts of a rule's leaves at every topology update, in host integers."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import jax
import numpy as np

from mst_jax.topology import allocation as allocations
from mst_jax.topology.regime import Regime


class Table(NamedTuple):
    """Counts of one group of leaves that are rewired at the same steps.

    Row 0 is the initial topology, row u the u-th rewire; columns are leaves.

    Attributes:
        keep: int32 ``[updates + 1, leaves]``, active weights that survive.
        target: int32 ``[updates + 1, leaves]``, active weights afterwards.
    """

    keep: np.ndarray | jax.Array
    target: np.ndarray | jax.Array


class Totals(NamedTuple):
    """Counts of one rule whose leaves share them by score at each rewire.

    Attributes:
        threshold: int32 ``[updates + 1]``, active weights of all leaves that survive the threshold.
        keep: int32 ``[updates + 1]``, active weights that survive the drops.
        target: int32 ``[updates + 1, leaves]``: row 0 is the initial topology; of the others the
            sum is what all leaves have afterwards, and a column what a leaf has only if
            ``Sharing.growth`` is ``plan`` (else what its allocation would give it).
    """

    threshold: np.ndarray | jax.Array
    keep: np.ndarray | jax.Array
    target: np.ndarray | jax.Array


class Leaves(NamedTuple):
    """The leaves of a rule, as budgets need them.

    Attributes:
        paths: their names.
        shapes: their shapes.
        multiples: what the count of each is a multiple of.
        untied: their shapes without tied axes.
    """

    paths: list[str]
    shapes: list[tuple[int, ...]]
    multiples: list[int]
    untied: list[tuple[int, ...]]


def table_of(
    regime: Regime, shapes: Mapping[str, tuple[int, ...]], regimes: Mapping[str, Regime]
) -> Table:
    """Keep and target counts of every update, exact.

    Targets are multiples of a leaf's groups times its units. What survives is whole units only:
    where groups are small, some of them lose one unit more than others, so that N:M topologies move
    too.
    """
    steps = [0, *(regime.timing.steps if regime.timing else ())]
    own = [(regimes[path].structure, shape) for path, shape in shapes.items()]
    units = np.array([structure.unit_of(shape) for structure, shape in own], np.int64)
    multiples = [structure.groups(shape) * structure.unit_of(shape) for structure, shape in own]
    untied = [structure.untied(shape) for structure, shape in own]
    sizes = np.array([math.prod(shape) for shape in shapes.values()])
    leaves = Leaves(list(shapes), list(shapes.values()), multiples, untied)
    target = _targets(leaves, regime, steps)
    keep = target.copy()
    for row, step in enumerate(steps[1:], start=1):
        base = np.minimum(target[row - 1], target[row])
        growth = target[row] - base
        drop = _parts(drop_at(regime, step), base) + _parts(regime.prune_ratio, growth)
        drop -= drop % units
        keep[row] = base - np.where(target[row] == sizes, 0, np.minimum(drop, base))
    return Table(keep.astype(np.int32), target.astype(np.int32))


def totals_of(regime: Regime, shapes: Mapping[str, tuple[int, ...]]) -> Totals:
    """Counts of all leaves together, for every update; exact decimals and integers only."""
    steps = [0, *regime.timing.steps]
    size = sum(math.prod(shape) for shape in shapes.values())
    own = list(shapes.values())
    target = _targets(Leaves(list(shapes), own, [1] * len(own), own), regime, steps)
    sums = target.sum(axis=1).tolist()
    threshold, keep = [sums[0]], [sums[0]]
    for step, old, new in zip(steps[1:], sums[:-1], sums[1:], strict=True):
        if new > old and regime.sharing.growth == "own":
            raise ValueError(
                f"{regime.name} regrows what it drops and cannot grow from {old} to {new} weights: "
                f"let the final sparsity be the larger one"
            )
        base = min(old, new)
        by_threshold = min(_part(regime.prune_ratio, new - base), base)
        dropped = 0 if new == size else _part(drop_at(regime, step), base)
        threshold.append(base - by_threshold)
        keep.append(base - min(by_threshold + dropped, base))
    return Totals(*(np.array(x, np.int32) for x in (threshold, keep)), target.astype(np.int32))


def drop_at(regime: Regime, step: int) -> float:
    """The regime's drop fraction at a step."""
    share = regime.drop(step)
    if not 0.0 <= share <= 1.0:
        raise ValueError(
            f"the drop fraction of {regime.name} must be in [0, 1], got {share} at step {step}"
        )
    return share


def _part(share: float | Fraction, count: int) -> int:
    """Whole part of a share of a count, exact in decimals: 0.29 of 100 is 29."""
    share = allocations.exact(share)
    return share.numerator * int(count) // share.denominator


def _parts(share: float | Fraction, counts: np.ndarray) -> np.ndarray:
    """`_part` of each count, int64."""
    share = allocations.exact(share)  # once: most of a table's time is reading decimals
    return np.array([_part(share, count) for count in counts.tolist()], np.int64)


def _targets(leaves: Leaves, regime: Regime, steps: list[int]) -> np.ndarray:
    """Budgets after every update, int64 ``[updates + 1, leaves]``."""
    if regime.growth is not None:
        return _grown(leaves, regime, steps)
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
        rows.append(_budgets(regime, leaves, level, previous, growing))
    return np.array(rows, np.int64)


def _budgets(
    regime: Regime,
    leaves: Leaves,
    level: float,
    previous: list[int] | None = None,
    growing: bool = False,
) -> list[int]:
    paths, shapes, multiples, untied = leaves
    return allocations.budgets(
        regime.allocation, paths, shapes, level, multiples, previous, growing, untied
    )


def _grown(leaves: Leaves, regime: Regime, steps: list[int]) -> np.ndarray:
    """Budgets that begin as allocated and grow at the regime's own rate, to the same density."""
    first = _budgets(regime, leaves, float(regime.sparsity(0)))
    final = float(regime.sparsity(regime.timing.end))
    ends = [
        math.prod(shape) // math.prod(one) * allocations.total_budget(math.prod(one), final)
        for shape, one in zip(leaves.shapes, leaves.untied, strict=True)
    ]
    ways = [max(end - n, 0) for end, n in zip(ends, first, strict=True)]
    rows, gone = [first], Fraction(0)
    for step in steps[1:]:
        # The sum is rounded, not every step: at a low rate the steps of a small leaf are below one.
        gone = min(gone + allocations.exact(regime.growth(step)), Fraction(1))
        rows.append(
            [
                n + math.floor(gone * way / m) * m
                for n, way, m in zip(first, ways, leaves.multiples, strict=True)
            ]
        )
    return np.array(rows, np.int64)
