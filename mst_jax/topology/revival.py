"""Topology-Aware Revival: a static mask, and one revival of a reserve that the draw held back.

The abstract of Jin et al. 2026 (arXiv 2602.04166) is what we have; what it leaves open is this
project's reading (``docs/specs/tar.md``). All counts are solved on the host, like every plan's.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Unpack

from mst_jax.topology import allocation as allocations
from mst_jax.topology import scores
from mst_jax.topology.allocation import Allocation, Shape, exact
from mst_jax.topology.regime import Options, Regime, Timing, check_options
from mst_jax.topology.regimes import check_share

RESERVE = 0.05  # of the weights that the module may have in the end; ours, see the specification
FLOOR = 0.2  # of the reserve, shared evenly; ours too


def topology_aware_revival(
    sparsity: float,
    *,
    start: int,
    reserve: float = RESERVE,
    floor: float = FLOOR,
    allocation: str | Allocation = "er",
    **options: Unpack[Options],
) -> Regime:
    """TAR: a static random mask that is completed once and then fixed (Jin et al. 2026).

    The mask is drawn with a reserve missing from the module's budget. At ``start`` the reserve is
    shared among the leaves by what their topology needs, with a floor for each, and comes to life
    at random within each leaf, at zero. Nothing is ever dropped (``docs/specs/tar.md``).

    Args:
        sparsity: share of zeros over the eligible leaves together from ``start`` on.
        start: step of the revival.
        reserve: share of those weights that are held back until then, above 0 and below 1.
        floor: share of the reserve that all leaves get in equal parts; the rest goes by need.
        allocation: of the mask that is drawn, as in `static`.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: a share out of range, or a reserve of nothing.
    """
    check_options(topology_aware_revival, options)
    for name, value in (("sparsity", sparsity), ("reserve", reserve)):
        check_share(name, value)
        if not value > 0.0:
            raise ValueError(f"{name} must be above 0 for something to be revived, got {value}")
    check_share("floor", floor, closed=True)
    drawn = float(1 - (1 - exact(sparsity)) * (1 - exact(reserve)))
    own: Options = {"grow_score": scores.random}
    return Regime(
        "topology_aware_revival",
        lambda step: sparsity if step >= start else drawn,
        by_need(allocations.named(allocation), drawn, floor),
        timing=Timing(1, start, start),
        **{**own, **options},
    )


def by_need(base: Allocation, drawn: float, floor: float) -> Allocation:
    """What an allocation gives at one sparsity, and beyond it a reserve shared by need.

    Args:
        base: shares the budget at ``drawn`` and at every higher sparsity.
        drawn: sparsity of the mask that is drawn.
        floor: share of the reserve that the leaves get in equal parts.
    """

    def densities(
        paths: Sequence[str], shapes: Sequence[Shape], sparsity: float
    ) -> list[float] | list[Fraction]:
        if exact(sparsity) >= exact(drawn):
            return base.densities(paths, shapes, sparsity)
        first = [
            exact(density) * _size(shape)
            for density, shape in zip(base.densities(paths, shapes, drawn), shapes, strict=True)
        ]
        total = (exact(drawn) - exact(sparsity)) * sum(map(_size, shapes))
        revived = shares_by_need(total, first, shapes, floor)
        return [
            (active + more) / _size(shape)
            for active, more, shape in zip(first, revived, shapes, strict=True)
        ]

    rebased = partial(by_need, drawn=drawn, floor=floor)
    return Allocation(f"{base.name}, then by need", densities, rebased=rebased)


def need(active: Fraction, shape: Shape) -> Fraction:
    """How much a leaf's topology needs: neurons of its wider side over their mean connections.

    A neuron of the wider side has the fewer connections, ``active / width`` of them on average,
    and asks for the reciprocal; the leaf asks for all of them: ``width^2 / active``.

    Args:
        active: its active weights.
        shape: its shape; the two channel axes are the last ones.
    """
    width = max(shape[-2:])
    return width * width / max(active, Fraction(1))


def shares_by_need(
    total: Fraction, active: Sequence[Fraction], shapes: Sequence[Shape], floor: float
) -> list[Fraction]:
    """Shares of a reserve: the floor in equal parts, the rest in proportion to `need`.

    A leaf that would exceed its size gets what it has room for; the others share what is left.

    Args:
        total: of weights to share.
        active: active weights of each leaf.
        shapes: of the leaves.
        floor: share of ``total`` for all leaves alike.
    """
    room = [_size(shape) - now for now, shape in zip(active, shapes, strict=True)]
    even = _filled(total * exact(floor), [Fraction(1)] * len(shapes), room)
    left = [space - part for space, part in zip(room, even, strict=True)]
    needs = [need(now, shape) for now, shape in zip(active, shapes, strict=True)]
    rest = _filled(total - sum(even), needs, left)
    return [a + b for a, b in zip(even, rest, strict=True)]


def _filled(
    total: Fraction, weights: Sequence[Fraction], room: Sequence[Fraction]
) -> list[Fraction]:
    """Shares in proportion to weights, none above its room, that spend all that there is room for.

    Leaves that would get more than their room are filled first, then the rest is shared anew.
    """
    full: set[int] = set()
    while True:
        rest = [i for i in range(len(room)) if i not in full]
        left = total - sum(room[i] for i in full)
        asked = sum(weights[i] for i in rest)
        over = [i for i in rest if left * weights[i] > room[i] * asked]
        if not over:
            return [room[i] if i in full else left * weights[i] / asked for i in range(len(room))]
        full.update(over)


def _size(shape: Shape) -> int:
    return math.prod(shape)
