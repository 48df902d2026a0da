"""Regimes whose density changes: dense to sparse (D2S), sparse to dense (S2D), and mixtures.

Schedules are of *counts*, solved leaf by leaf on the host; the device only ever sees integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mst_jax.topology import schedules
from mst_jax.topology.allocation import Allocation, exact
from mst_jax.topology.regime import Regime, Timing
from mst_jax.topology.regimes import Sparsity, check_share, fading, resolve, timing_of
from mst_jax.topology.schedules import Schedule


def gradual_magnitude_pruning(
    sparsity: Sparsity,
    *,
    start: int,
    end: int,
    interval: int = 1000,
    initial: float = 0.0,
    schedule: Callable[[float, float, int, int], Schedule] = schedules.cubic,
    allocation: str | Allocation = "er",
    **options: object,
) -> Regime:
    """D2S: from dense to sparse, the smallest weights first (Zhu & Gupta 2017).

    The project prunes between 0.2 and 0.8 of all updates, every 1000 (``specs/mst-and-mrq.md``
    §3.6). Pruned weights never return.

    Args:
        sparsity: final sparsity, as in :func:`static`.
        start: first prune.
        end: step at which the final sparsity is reached.
        interval: steps between prunes.
        initial: sparsity before ``start``.
        schedule: ``(initial, final, start, end) -> schedule``: ``cubic``, ``linear``, ``cosine``.
        allocation: as in :func:`static`.
        **options: other fields of :class:`Regime`.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity out of range, or ``end`` not after ``start``.
    """
    level, allocation = resolve(sparsity, allocation)
    check_share("initial", initial)
    return Regime(
        "gradual_magnitude_pruning",
        schedule(initial, level, start, end),
        allocation,
        timing=Timing(interval, start, end),
        **options,
    )


def granet(
    sparsity: Sparsity,
    *,
    start: int,
    end: int,
    prune_end: int | None = None,
    interval: int = 1000,
    initial: float = 0.0,
    drop_fraction: float | Schedule = 0.5,
    final_drop_fraction: float = 0.005,
    allocation: str | Allocation = "er",
    **options: object,
) -> Regime:
    """GraNet: gradual pruning with prune-and-regrow at every step of it (Liu et al. 2021).

    Args:
        sparsity: final sparsity, as in :func:`static`.
        start: first rewire.
        end: last rewire.
        prune_end: step at which the final sparsity is reached; ``end`` by default.
        interval: steps between rewires.
        initial: sparsity before ``start``; 0 is dense-to-sparse, 0.5 the paper's sparse start.
        drop_fraction: share of the active weights replaced at ``start``, or a schedule.
        final_drop_fraction: the same at ``end``; half a cosine in between.
        allocation: as in :func:`static` (the paper prunes globally).
        **options: other fields of :class:`Regime`.

    Returns:
        The regime.

    Raises:
        ValueError: shares out of range, or ``end`` not after ``start``.
    """
    regime = gradual_magnitude_pruning(
        sparsity,
        start=start,
        end=end if prune_end is None else prune_end,
        initial=initial,
        allocation=allocation,
        **options,
    )
    drop = drop_fraction
    if not callable(drop):
        check_share("drop_fraction", drop, closed=True)
        drop = schedules.cosine(drop, final_drop_fraction, start, end)
    return replace(regime, name="granet", timing=Timing(interval, start, end), drop=drop)


def gradual_growth(
    sparsity: Sparsity,
    *,
    end: int,
    start: int | None = None,
    interval: int = 1000,
    final: float = 0.0,
    schedule: Callable[[float, float, int, int], Schedule] = schedules.cubic,
    allocation: str | Allocation = "er",
    **options: object,
) -> Regime:
    """S2D: from sparse to dense, growing where the dense gradient is largest; nothing is dropped.

    The mirror image of gradual pruning: the project grows from 0.6 to dense until 0.75 of all
    updates, every 1000 (``specs/mst-and-mrq.md`` §3.7).

    Args:
        sparsity: initial sparsity, as in :func:`static`.
        end: step at which the final sparsity is reached.
        start: first growth; ``interval`` by default. The schedule begins at step 0.
        interval: steps between growths.
        final: final sparsity; 0 ends dense.
        schedule: ``(initial, final, start, end) -> schedule``.
        allocation: as in :func:`static`.
        **options: other fields of :class:`Regime`.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity out of range, or no rewire before ``end``.
    """
    level, allocation = resolve(sparsity, allocation)
    check_share("final", final)
    return Regime(
        "gradual_growth",
        schedule(level, final, 0, end),
        allocation,
        timing=timing_of(interval, start, end),
        **options,
    )


def neuroplastic_expansion(
    sparsity: Sparsity = 0.8,
    *,
    growth_end: int,
    end: int | None = None,
    final: float = 0.25,
    interval: int = 10_000,
    start: int | None = None,
    prune_share: float = 0.4,
    drop_fraction: float = 0.2,
    allocation: str | Allocation = "er",
    **options: object,
) -> Regime:
    """Neuroplastic Expansion (Liu et al. 2025): grow with some pruning, then rewire as RigL.

    Starts from the largest initial weights. The growth rate is cosine-annealed to zero at
    ``growth_end``; of the weights grown at a step, ``prune_share`` are paid for by dropping the
    smallest ones. Growth is a schedule of counts measured from masks (``specs/mst-and-mrq.md``
    §3.7); dropping by dormancy would need activations and is not part of it.

    Args:
        sparsity: initial sparsity, as in :func:`static`.
        growth_end: step at which the final sparsity is reached.
        end: last rewire; ``growth_end`` by default.
        final: final sparsity.
        interval: steps between rewires.
        start: first rewire; ``interval`` by default.
        prune_share: share of the grown weights that replace dropped ones.
        drop_fraction: RigL's drop fraction after ``growth_end``, half a cosine to zero at ``end``.
        allocation: as in :func:`static`.
        **options: other fields of :class:`Regime`.

    Returns:
        The regime.

    Raises:
        ValueError: shares out of range, or no rewire before ``end``.
    """
    check_share("prune_share", prune_share)
    regime = gradual_growth(
        sparsity,
        end=growth_end,
        start=start,
        interval=interval,
        final=final,
        schedule=schedules.annealed_rate,
        allocation=allocation,
        **{"draw": "magnitude", **options},
    )
    end = growth_end if end is None else end
    rewiring = fading(drop_fraction, growth_end, max(end, growth_end + 1))
    return replace(
        regime,
        name="neuroplastic_expansion",
        timing=timing_of(interval, start, end),
        drop=lambda step: rewiring(step) if step > growth_end else 0.0,
        prune_ratio=exact(prune_share) / (1 - exact(prune_share)),
    )


def dense_then_rigl(
    sparsity: Sparsity,
    *,
    start: int,
    end: int,
    interval: int = 100,
    drop_fraction: float | Schedule = 0.3,
    allocation: str | Allocation = "er",
    **options: object,
) -> Regime:
    """Dense until ``start``, then one magnitude prune, then RigL.

    Args:
        sparsity: sparsity from ``start`` on, as in :func:`static`.
        start: step of the prune.
        end: last step at which the topology may change.
        interval: steps between rewires.
        drop_fraction: RigL's, half a cosine from ``start`` to zero at ``end``, or a schedule.
        allocation: as in :func:`static`.
        **options: other fields of :class:`Regime`.

    Returns:
        The regime.

    Raises:
        ValueError: shares out of range, or ``end`` before ``start``.
    """
    if start < 1:
        raise ValueError(f"start must be at least 1, got {start}; use rigl() to begin sparse.")
    level, allocation = resolve(sparsity, allocation)
    falling = fading(drop_fraction, start, max(end, start + 1))
    return Regime(
        "dense_then_rigl",
        lambda step: level if step >= start else 0.0,
        allocation,
        timing=Timing(interval, start, end),
        drop=lambda step: falling(step) if step > start else 0.0,
        **options,
    )
