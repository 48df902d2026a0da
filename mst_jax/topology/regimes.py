"""Regimes: training methods, each a setting of the same rewire step.

Give one to a rule of `mst_jax.topology.plan`. What the papers do and what this project chose
is in ``docs/specs/mst-and-mrq.md`` §3; steps are optimizer steps of the module throughout.
"""

import numbers
from collections.abc import Mapping
from dataclasses import replace
from typing import Unpack

from mst_jax.topology import allocation as allocations
from mst_jax.topology import schedules, scores
from mst_jax.topology.allocation import Allocation
from mst_jax.topology.regime import Options, OptionsOfSet, Regime, Sharing, Timing, check_options
from mst_jax.topology.schedules import Schedule

Sparsity = float | Mapping[str, float]


def dense() -> Regime:
    """No masks, no extra arithmetic."""
    return Regime("dense")


def static(
    sparsity: Sparsity, *, allocation: str | Allocation = "er", **options: Unpack[Options]
) -> Regime:
    """SST: one random mask at initialisation, fixed for ever (Ma et al. 2025, arXiv 2506.17204).

    Args:
        sparsity: share of zeros over the eligible leaves together, in [0, 1); or a mapping from
            path pattern to the sparsity of each leaf it matches.
        allocation: ``er``, ``erk``, ``uniform`` or an `Allocation`.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity out of range.
    """
    check_options(static, options)
    level, allocation = resolve(sparsity, allocation)
    return Regime("static", schedules.constant(level), allocation, **options)


def network_sparsity(sparsity: float) -> Regime:
    """SST as the code of Ma et al. 2025 does it: every tensor counts, entries drawn one by one.

    Biases and LayerNorm parameters are in the Erdős–Rényi budget (they come out dense) and each
    entry is an independent Bernoulli draw, so that counts hold on average only
    (``docs/specs/network-sparsity.md`` §3.2). Match *all* leaves of the network with it.

    Args:
        sparsity: share of zeros over all tensors, in [0, 1).

    Returns:
        The regime.
    """
    regime = static(sparsity, allocation="erk", leaves="all", draw="bernoulli")
    return replace(regime, name="network_sparsity")


def set(
    sparsity: Sparsity,
    *,
    end: int,
    interval: int = 100,
    start: int | None = None,
    drop_fraction: float | Schedule = 0.3,
    by_sign: bool = False,
    allocation: str | Allocation = "er",
    **options: Unpack[OptionsOfSet],
) -> Regime:
    """SET: drop the smallest weights, grow at random (Mocanu et al. 2018, Nature Communications).

    The drop fraction is constant, as published; pass a schedule for another. By default the
    smallest ``|w|`` of a leaf go; the paper takes the smallest positive and the largest negative
    weights, a share of each.

    Args:
        sparsity: as in `static`.
        end: last step at which the topology may change.
        interval: optimizer steps between rewires (published: an epoch).
        start: first rewire; ``interval`` by default.
        drop_fraction: share of active weights replaced at a rewire, or a schedule.
        by_sign: drop the same share of positive and of negative weights, as published.
        allocation: as in `static`.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity or drop fraction out of range, or no rewire before ``end``.
    """
    check_options(set, options)
    options.setdefault("grow_score", scores.random)
    level, allocation = resolve(sparsity, allocation)
    return Regime(
        "set_by_sign" if by_sign else "set",
        schedules.constant(level),
        allocation,
        timing=timing_of(interval, start, end),
        drop=_share(drop_fraction),
        by_sign=by_sign,
        **options,
    )


def rigl(
    sparsity: Sparsity,
    *,
    end: int,
    interval: int = 100,
    start: int | None = None,
    drop_fraction: float | Schedule = 0.3,
    allocation: str | Allocation = "er",
    **options: Unpack[Options],
) -> Regime:
    """RigL: drop the smallest weights, grow where the dense gradient is largest (Evci et al. 2020).

    The drop fraction follows half a cosine to zero at ``end``. The project's setting for the MST
    critic is interval 100, drop 0.3, end at 0.75 of updates (``docs/specs/mst-and-mrq.md`` §3.5).

    Args:
        sparsity: as in `static`.
        end: last step at which the topology may change; 0.75 of the module's optimizer steps.
        interval: steps between rewires.
        start: first rewire; ``interval`` by default.
        drop_fraction: share of active weights replaced at step 0, or a schedule.
        allocation: as in `static`.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity or drop fraction out of range, or no rewire before ``end``.
    """
    check_options(rigl, options)
    level, allocation = resolve(sparsity, allocation)
    return Regime(
        "rigl",
        schedules.constant(level),
        allocation,
        timing=timing_of(interval, start, end),
        drop=fading(drop_fraction, 0, end),
        **options,
    )


def snfs(
    sparsity: Sparsity,
    *,
    end: int,
    momentum: float = 0.9,
    interval: int = 100,
    start: int | None = None,
    drop_fraction: float | Schedule = 0.3,
    redistribute: bool = False,
    adam: bool = False,
    allocation: str | Allocation = "er",
    **options: Unpack[Options],
) -> Regime:
    """SNFS: as RigL, but grow where the *averaged* dense gradient is largest.

    Dettmers & Zettlemoyer 2019. By default budgets stay with their leaves (as in RigL's reference
    code, so that RigL and SNFS differ in the growth score alone); the paper redistributes them.
    With noisy gradients, as in RL, the average is also a sensible growth score for RigL.

    Args:
        sparsity: as in `static`.
        end: last step at which the topology may change.
        momentum: decay of the gradient average, one float32 per masked weight.
        interval: steps between rewires.
        start: first rewire; ``interval`` by default.
        drop_fraction: share of active weights replaced at step 0 (cosine to zero), or a schedule.
        redistribute: share what is regrown among leaves in proportion to the mean averaged
            gradient of their active weights, as published; the module's total stays exact.
        adam: score by ``m / (sqrt(v) + 1e-8)``, v an average (0.999) of squared dense gradients, as
            the authors' code does under Adam; one more float32 per masked weight.
        allocation: as in `static`; with ``redistribute`` of the first topology only.
        **options: see `Options`; a name that does not exist is refused.

    Returns:
        The regime.

    Raises:
        ValueError: sparsity, momentum or drop fraction out of range, or no rewire before ``end``.
    """
    check_options(snfs, options)
    own: Options = {"grow_score": scores.average_gradient, "average": momentum}
    if adam:
        own |= {"grow_score": scores.adam_gradient, "average_square": 0.999}
    if redistribute:
        own |= {"sharing": Sharing(growth="score")}
    regime = rigl(
        sparsity,
        end=end,
        interval=interval,
        start=start,
        drop_fraction=drop_fraction,
        allocation=allocation,
        **{**own, **options},
    )
    return replace(regime, name="snfs" + "_redistributed" * redistribute + "_adam" * adam)


def resolve(sparsity: Sparsity, allocation: str | Allocation) -> tuple[float, Allocation]:
    """Level of the sparsity schedule and the allocation; leaf values scale a level of 1."""
    if isinstance(sparsity, Mapping):
        for value in sparsity.values():
            check_share("sparsity", value)
        return 1.0, allocations.explicit(sparsity)
    check_share("sparsity", sparsity)
    return sparsity, allocations.named(allocation)


def timing_of(interval: int, start: int | None, end: int) -> Timing:
    """Timing whose first rewire is after one interval unless said otherwise."""
    return Timing(interval, interval if start is None else start, end)


def _share(value: float | Schedule) -> Schedule:
    if not callable(value):
        check_share("drop_fraction", value, closed=True)
    return schedules.as_schedule(value)


def fading(value: float | Schedule, start: int, end: int) -> Schedule:
    """Half a cosine to zero; a schedule passes through."""
    if callable(value):
        return value
    check_share("drop_fraction", value, closed=True)
    return schedules.cosine(value, 0.0, start, end)


def check_share(what: str, value: float, closed: bool = False) -> None:
    """Raises unless the value is a number in [0, 1), or [0, 1] if closed."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{what} must be a number, got {value!r}")
    if not (0.0 <= value < 1.0 or (closed and value == 1.0)):
        raise ValueError(f"{what} must be in [0, 1{']' if closed else ')'}, got {value}")


def one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ``ValueError`` unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{what} must be {' or '.join(choices)}, got {value!r}")
