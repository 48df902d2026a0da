"""Schedules: numbers as functions of the module's optimizer step, evaluated on the host.

A schedule is any callable ``step -> float``. They are evaluated once, when a plan is made, in
float64; nothing of them reaches the device but the integers of the plan's table.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def as_schedule(value: float | Schedule) -> Schedule:
    """A number as a constant schedule; a callable passes through."""
    return value if callable(value) else constant(value)


def constant(value: float) -> Schedule:
    """Always ``value``."""
    return lambda step: float(value)


def _anneal(
    initial: float, final: float, start: int, end: int, progress: Callable[[float], float]
) -> Schedule:
    if end <= start:
        raise ValueError(f"a schedule must end after it starts, got start={start}, end={end}")

    def schedule(step: int) -> float:
        x = min(max((step - start) / (end - start), 0.0), 1.0)
        # The end points are returned as given, so that 0.6 does not become 0.6000000000000001.
        return (
            initial
            if x == 0.0
            else final
            if x == 1.0
            else initial + (final - initial) * progress(x)
        )

    return schedule


def linear(initial: float, final: float, start: int, end: int) -> Schedule:
    """From ``initial`` at ``start`` to ``final`` at ``end`` in a straight line."""
    return _anneal(initial, final, start, end, lambda x: x)


def cosine(initial: float, final: float, start: int, end: int) -> Schedule:
    """Half a cosine from ``initial`` to ``final`` (RigL's drop fraction, Evci et al. 2020)."""
    return _anneal(initial, final, start, end, lambda x: (1.0 - math.cos(math.pi * x)) / 2.0)


def cubic(initial: float, final: float, start: int, end: int) -> Schedule:
    """``final + (initial - final)(1 - x)^3``: fast first, slow last (Zhu & Gupta 2017, eq. 1)."""
    return _anneal(initial, final, start, end, lambda x: 1.0 - (1.0 - x) ** 3)


def annealed_rate(initial: float, final: float, start: int, end: int) -> Schedule:
    """A change whose *rate* is cosine-annealed to zero: progress ``x + sin(pi x) / pi``.

    The sum of increments ``rate * (1 + cos(pi x)) / 2``, as Neuroplastic Expansion (Liu et al.
    2025) grows.
    """
    return _anneal(initial, final, start, end, lambda x: x + math.sin(math.pi * x) / math.pi)
