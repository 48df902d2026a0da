"""Regimes: training methods as settings of one rewire step.

Every ``interval`` steps, leaf by leaf, with integers computed on the host::

    keep = top(n_keep   | active,   by drop_score)
    grow = top(n_target - n_keep | not kept, by grow_score)

A regime says how ``n_keep`` and ``n_target`` come about (sparsity and drop-fraction schedules,
allocation), when (interval, start, end) and by which scores. Defaults: ``specs/mst-and-mrq.md`` §3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mst_jax.topology import allocation as allocations
from mst_jax.topology import schedules, scores
from mst_jax.topology.allocation import Allocation
from mst_jax.topology.schedules import Schedule
from mst_jax.topology.scores import Score
from mst_jax.topology.structures import Structure


@dataclass(frozen=True)
class Timing:
    """Steps at which a topology is rewired: ``start, start + interval, ...`` up to ``end``.

    Attributes:
        interval: optimizer steps between rewires.
        start: first step.
        end: last step, inclusive.
    """

    interval: int
    start: int
    end: int

    def __post_init__(self) -> None:
        if self.interval < 1 or self.start < 0:
            raise ValueError(f"interval must be >= 1 and start >= 0, got {self}.")
        if self.end < self.start:
            raise ValueError(
                f"No rewire would ever happen: end={self.end} is before start={self.start}; give a "
                f"later end or use static()."
            )

    @property
    def steps(self) -> range:
        """All steps at which a rewire happens."""
        return range(self.start, self.end + 1, self.interval)


@dataclass(frozen=True)
class Regime:
    """One training regime. Use the functions of this module rather than the class.

    Attributes:
        name: shown in printed plans.
        sparsity: sparsity of the module at an optimizer step; None trains it dense, without masks.
        allocation: how the module's budget is shared among its leaves.
        timing: when the topology is rewired; None never.
        drop: share of the active weights dropped (and regrown) at a step.
        prune_ratio: of the weights grown beyond the old number, how many are dropped elsewhere.
        drop_score: the active weights with the largest are kept.
        grow_score: the inactive positions with the largest are grown.
        average: decay of the gradient average that scores may read; None keeps no average.
        structure: which entries compete.
        draw: initial mask: ``random``, ``magnitude`` (largest initial weights) or ``bernoulli``
            (independent entries, so counts hold only on average; static regimes only).
        leaves: eligible leaves: ``kernels`` (two axes or more) or ``all``.
        dense_first: keep the first eligible leaf dense (paths in natural order, 2 before 10).
        dense_last: keep the last eligible leaf dense.
    """

    name: str
    sparsity: Schedule | None = None
    allocation: Allocation = field(default_factory=allocations.erdos_renyi)
    timing: Timing | None = None
    drop: Schedule = field(default_factory=lambda: schedules.constant(0.0))
    prune_ratio: float = 0.0
    drop_score: Score = scores.magnitude
    grow_score: Score = scores.gradient
    average: float | None = None
    structure: Structure = field(default_factory=Structure)
    draw: str = "random"
    leaves: str = "kernels"
    dense_first: bool = False
    dense_last: bool = False

    def __post_init__(self) -> None:
        if self.draw not in ("random", "magnitude", "bernoulli"):
            raise ValueError(f"draw must be random, magnitude or bernoulli, got {self.draw!r}.")
        if self.leaves not in ("kernels", "all"):
            raise ValueError(f"leaves must be 'kernels' or 'all', got {self.leaves!r}.")
        if self.draw == "bernoulli" and self.timing is not None:
            raise ValueError("Bernoulli masks have no exact counts: only static regimes take them.")


def dense() -> Regime:
    """No masks, no extra arithmetic."""
    return Regime("dense")


def static(
    sparsity: float | Mapping[str, float],
    *,
    allocation: str | Allocation = "er",
    **options: object,
) -> Regime:
    """SST: one random mask at initialisation, fixed for ever (Ma et al. 2025, arXiv 2506.17204).

    Args:
        sparsity: share of zeros over the eligible leaves, in [0, 1); or path pattern -> sparsity.
        allocation: ``er``, ``erk``, ``uniform`` or an :class:`Allocation`.
        **options: other fields of :class:`Regime`.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity out of range.
    """
    return _sparse("static", sparsity, allocation, **options)


def rigl(
    sparsity: float | Mapping[str, float],
    *,
    end: int,
    interval: int = 100,
    start: int | None = None,
    drop_fraction: float | Schedule = 0.3,
    allocation: str | Allocation = "er",
    **options: object,
) -> Regime:
    """RigL: drop the smallest weights, grow where the dense gradient is largest (Evci et al. 2020).

    The drop fraction follows half a cosine to zero at ``end``. The project's setting for the MST
    critic is interval 100, drop 0.3, end at 0.75 of all updates (``specs/mst-and-mrq.md`` §3.5).

    Args:
        sparsity: share of zeros, in [0, 1); or path pattern -> sparsity.
        end: last step at which the topology may change; 0.75 of the module's optimizer steps.
        interval: steps between rewires.
        start: first rewire; ``interval`` by default.
        drop_fraction: share of active weights replaced at step 0, or a schedule.
        allocation: as in :func:`static`.
        **options: other fields of :class:`Regime`.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity or drop fraction out of range, or no rewire before ``end``.
    """
    timing = Timing(interval, interval if start is None else start, end)
    drop = _fading(drop_fraction, 0, end)
    return _sparse("rigl", sparsity, allocation, timing=timing, drop=drop, **options)


def _sparse(
    name: str,
    sparsity: float | Mapping[str, float],
    allocation: str | Allocation,
    **options: object,
) -> Regime:
    if isinstance(sparsity, Mapping):
        for value in sparsity.values():
            _check_share("sparsity", value)
        return Regime(name, schedules.constant(1.0), allocations.explicit(sparsity), **options)
    _check_share("sparsity", sparsity)
    return Regime(name, schedules.constant(sparsity), allocations.named(allocation), **options)


def _fading(drop_fraction: float | Schedule, start: int, end: int) -> Schedule:
    """Cosine decay to zero; a schedule passes through."""
    if callable(drop_fraction):
        return drop_fraction
    if not 0.0 <= drop_fraction <= 1.0:
        raise ValueError(f"drop_fraction must be in [0, 1], got {drop_fraction}.")
    return schedules.cosine(drop_fraction, 0.0, start, end)


def _check_share(what: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{what} must be in [0, 1), got {value}.")
