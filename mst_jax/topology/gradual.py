"""Regimes whose density changes: dense to sparse (D2S), sparse to dense (S2D), and mixtures.

Schedules are of *counts*, solved leaf by leaf on the host; the device only ever sees integers.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

from mst_jax.topology import schedules, scores
from mst_jax.topology.allocation import Allocation, exact
from mst_jax.topology.regime import Options, Regime, Sharing, Timing, check_options
from mst_jax.topology.regimes import (
    Sparsity,
    check_share,
    fading,
    one_of,
    resolve,
    timing_of,
)
from mst_jax.topology.schedules import Schedule


def gradual_magnitude_pruning(
    sparsity: Sparsity,
    *,
    start: int,
    end: int,
    interval: int = 1000,
    initial: float = 0.0,
    schedule: Callable[[float, float, int, int], Schedule] = schedules.cubic,
    threshold: str = "leaf",
    allocation: str | Allocation = "er",
    **options: Unpack[Options],
) -> Regime:
    """D2S: from dense to sparse, the smallest weights first (Zhu & Gupta 2017).

    Published use in RL prunes between 0.2 and 0.8 of all updates (``docs/specs/mst-and-mrq.md``
    §3.6). Pruned weights never return. Zhu & Gupta prune every layer to the same sparsity
    (``allocation="uniform"``); GMP as GraNet's authors run it has one threshold for all layers
    (``threshold="global"``); by default leaves have Erdős–Rényi budgets, as everywhere here.

    Args:
        sparsity: final sparsity, as in `static`.
        start: first prune.
        end: step at which the final sparsity is reached.
        interval: steps between prunes.
        initial: sparsity before ``start``.
        schedule: ``(initial, final, start, end) -> schedule``: ``cubic``, ``linear``, ``cosine``.
        threshold: ``leaf``: every leaf is pruned to its own budget; ``global``: one threshold for
            all leaves of the rule, so that the smallest weights of the module go wherever they
            are. The module's total is exact either way.
        allocation: as in `static`; under a global threshold of the first topology only.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity out of range, ``end`` not after ``start``, or unknown threshold.
    """
    check_options(gradual_magnitude_pruning, options)
    level, allocation = resolve(sparsity, allocation)
    check_share("initial", initial)
    one_of("threshold", threshold, ("leaf", "global"))
    if threshold == "global":
        score = options.get("drop_score", scores.magnitude)
        options = {"sharing": Sharing(threshold=score, growth="own"), **options}
    return Regime(
        "gradual_magnitude_pruning" + "_global" * (threshold == "global"),
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
    threshold: str = "leaf",
    allocation: str | Allocation = "er",
    **options: Unpack[Options],
) -> Regime:
    """GraNet: gradual pruning with prune-and-regrow at every step of it (Liu et al. 2021).

    By default every leaf is pruned to its own budget. The paper prunes by one threshold for all
    layers; each then drops the same share of what is left to it and regrows as many.

    Args:
        sparsity: final sparsity, as in `static`.
        start: first rewire.
        end: last rewire.
        prune_end: step at which the final sparsity is reached; ``end`` by default.
        interval: steps between rewires.
        initial: sparsity before ``start``; 0 is dense-to-sparse, 0.5 the paper's sparse start.
        drop_fraction: share of the active weights replaced at ``start``, or a schedule.
        final_drop_fraction: the same at ``end``; half a cosine in between.
        threshold: ``leaf`` or, as published, ``global``; see `gradual_magnitude_pruning`.
        allocation: as in `static`; under a global threshold of the first topology only.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: shares out of range, or ``end`` not after ``start``.
    """
    check_options(granet, options)
    regime = gradual_magnitude_pruning(
        sparsity,
        start=start,
        end=end if prune_end is None else prune_end,
        initial=initial,
        threshold=threshold,
        allocation=allocation,
        **options,
    )
    drop = drop_fraction
    if not callable(drop):
        check_share("drop_fraction", drop, closed=True)
        drop = schedules.cosine(drop, final_drop_fraction, start, end)
    name = "granet" + "_global" * (threshold == "global")
    return replace(regime, name=name, timing=Timing(interval, start, end), drop=drop)


def gradual_growth(
    sparsity: Sparsity,
    *,
    end: int,
    start: int | None = None,
    interval: int = 1000,
    final: float = 0.0,
    schedule: Callable[[float, float, int, int], Schedule] = schedules.cubic,
    allocation: str | Allocation = "er",
    **options: Unpack[Options],
) -> Regime:
    """S2D: from sparse to dense, growing where the dense gradient is largest; nothing is dropped.

    The mirror image of gradual pruning: the project grows from 0.6 to dense until 0.75 of all
    updates (``docs/specs/mst-and-mrq.md`` §3.7).

    Args:
        sparsity: initial sparsity, as in `static`.
        end: step at which the final sparsity is reached.
        start: first growth; ``interval`` by default. The schedule begins at step 0.
        interval: steps between growths.
        final: final sparsity; 0 ends dense.
        schedule: ``(initial, final, start, end) -> schedule``.
        allocation: as in `static`.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity out of range, or no rewire before ``end``.
    """
    check_options(gradual_growth, options)
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
    rate: float | Schedule | None = None,
    prune: str = "magnitude",
    tau: float = 0.0,
    allocation: str | Allocation = "er",
    **options: Unpack[Options],
) -> Regime:
    """Neuroplastic Expansion (Liu et al. 2025): grow with some pruning, then rewire as RigL.

    Starts from the largest initial weights. Of the weights grown at a step, ``prune_share`` are
    paid for by dropping others. By default the growth rate is cosine-annealed to zero at
    ``growth_end`` and scaled so that growth ends exactly at ``final``, leaves have Erdős–Rényi
    budgets throughout, and the smallest weights go; ``rate`` and ``prune`` are the published
    choices (``docs/specs/mst-and-mrq.md`` §3.7). Experience review, which is about replay, is not
    part of it.

    Args:
        sparsity: initial sparsity, as in `static`.
        growth_end: step at which the final sparsity is reached.
        end: last rewire; ``growth_end`` by default.
        final: final sparsity.
        interval: steps between rewires.
        start: first rewire; ``interval`` by default.
        prune_share: share of the grown weights that replace dropped ones.
        drop_fraction: RigL's drop fraction after ``growth_end``, half a cosine to zero at ``end``.
        rate: growth at each rewire as a share of the room that a leaf has between its first count
            and density ``1 - final``, the same in all leaves; a schedule (the paper anneals it by
            half a cosine) or a constant (the authors' code: 0.008). Nothing normalises it: leaves
            that are full stop, and at a low rate ``final`` is never reached.
        prune: ``magnitude``, or ``dormancy``: the module's drops go to the weights into the least
            active neurons, whatever the leaf, as published; ``update`` then needs ``activity=``.
        tau: with ``dormancy``, weights into neurons more active than this share of their layer's
            mean are never dropped by it; the paper's 0 leaves neurons that are exactly silent, and
            ``math.inf`` spends every drop.
        allocation: as in `static`; with ``rate`` of the first topology only.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: shares out of range, no rewire before ``end``, or unknown ``prune``.
    """
    check_options(neuroplastic_expansion, options)
    check_share("prune_share", prune_share)
    one_of("prune", prune, ("magnitude", "dormancy"))
    if not tau >= 0.0:
        raise ValueError(f"tau must not be negative, got {tau}")
    own: Options = {"draw": "magnitude"}
    if rate is not None:
        if not callable(rate):
            check_share("rate", rate, closed=True)
        gross = schedules.as_schedule(rate)
        own["growth"] = lambda step: (
            gross(step) * (1.0 - prune_share) if step <= growth_end else 0.0
        )
    if prune == "dormancy":
        own["sharing"] = Sharing(threshold=scores.dormancy, spared=tau, growth="plan")
    regime = gradual_growth(
        sparsity,
        end=growth_end,
        start=start,
        interval=interval,
        final=final,
        schedule=schedules.annealed_rate,
        allocation=allocation,
        **{**own, **options},
    )
    end = growth_end if end is None else end
    rewiring = fading(drop_fraction, growth_end, max(end, growth_end + 1))
    return replace(
        regime,
        name="neuroplastic_expansion" + "_dormancy" * (prune == "dormancy"),
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
    **options: Unpack[Options],
) -> Regime:
    """Dense until ``start``, then one magnitude prune, then RigL.

    Args:
        sparsity: sparsity from ``start`` on, as in `static`.
        start: step of the prune.
        end: last step at which the topology may change.
        interval: steps between rewires.
        drop_fraction: RigL's, half a cosine from ``start`` to zero at ``end``, or a schedule.
        allocation: as in `static`.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: shares out of range, or ``end`` before ``start``.
    """
    check_options(dense_then_rigl, options)
    if start < 1:
        raise ValueError(f"start must be at least 1, got {start}; use rigl() to begin sparse")
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
