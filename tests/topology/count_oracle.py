"""Choosing and sharing out in NumPy and exact fractions."""

import math
from fractions import Fraction

import numpy as np

LEAVES = {"a": (6, 5), "b": (5, 4), "c": (4, 1)}


def best(scores, k, eligible):
    """The k best of a flat vector: NaN last, then by index."""
    order = sorted(np.flatnonzero(eligible), key=lambda i: (np.isnan(scores[i]), -scores[i], i))
    mask = np.zeros(len(scores), bool)
    mask[order[: max(k, 0)]] = True
    return mask


def shared_out(total, weights, room):
    """Largest remainder within bounds, in exact fractions."""
    total, full = min(max(total, 0), sum(room)), {i for i, r in enumerate(room) if r <= 0}
    while True:
        own = [i for i in range(len(room)) if i not in full]
        rest = total - sum(room[i] for i in full)
        mass = sum(weights[i] for i in own)
        real = {i: Fraction(rest * weights[i], mass) for i in own if mass}
        over = {i for i in own if mass and real[i] >= room[i]}
        if not over:
            break
        full |= over
    parts = [room[i] if i in full else math.floor(real.get(i, 0)) for i in range(len(room))]
    order = sorted(real, key=lambda i: (parts[i] - real[i], i))
    for i in order[: rest - sum(parts[i] for i in own)]:
        parts[i] += 1
    return parts


def split(vector):
    return np.split(vector, np.cumsum([math.prod(s) for s in LEAVES.values()])[:-1])
