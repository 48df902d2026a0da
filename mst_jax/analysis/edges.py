"""What a sequence of masks says about single weights: churn, exploration, survival and age.

Masks are bool (T, inputs, outputs), one for each of T snapshots. A weight that goes and comes back
between two snapshots counts as having stayed.
"""

import numpy as np


def densities(masks: np.ndarray) -> np.ndarray:
    """Share of active weights at each snapshot (T,)."""
    return masks.mean(axis=(1, 2))


def churn(masks: np.ndarray) -> np.ndarray:
    """Share of positions that differ from the snapshot before (T,); 0 at the first.

    Every replaced weight counts twice, where it went and where it came.
    """
    changed = (masks[1:] != masks[:-1]).mean(axis=(1, 2))
    return np.concatenate([[0.0], changed])


def explored(masks: np.ndarray) -> np.ndarray:
    """Share of positions active at this or any earlier snapshot (T,).

    The in-time over-parameterisation of Liu et al. (2021, "Do we actually need dense
    over-parameterization?", section 2), as far as the snapshots see it.
    """
    return np.logical_or.accumulate(masks, axis=0).mean(axis=(1, 2))


def without_incoming(masks: np.ndarray) -> np.ndarray:
    """Share of outputs without an active incoming weight (T,)."""
    return 1.0 - masks.any(axis=1).mean(axis=1)


def without_outgoing(masks: np.ndarray) -> np.ndarray:
    """Share of inputs without an active outgoing weight (T,)."""
    return 1.0 - masks.any(axis=2).mean(axis=1)


def survival(masks: np.ndarray, born: int) -> np.ndarray:
    """Share of the weights that came at a snapshot which have been active ever since (T,).

    Args:
        masks: (T, inputs, outputs).
        born: index of the snapshot; for 0 these are the initial weights.

    Returns:
        NaN before `born`, and everywhere if no weight came then.
    """
    came = masks[born] & ~masks[born - 1] if born else masks[0]
    alive = np.logical_and.accumulate(masks[born:], axis=0) & came
    count = np.count_nonzero(came)
    shares = alive.sum(axis=(1, 2)) / count if count else np.full(len(masks) - born, np.nan)
    return np.concatenate([np.full(born, np.nan), shares])


def ages(masks: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How long the weights active at the last snapshot have been active without a break.

    Args:
        masks: (T, inputs, outputs).
        steps: (T,) when each was taken.

    Returns:
        (N,) in the unit of `steps`, one for each active weight; those that came at the last
        snapshot are 0 old.
    """
    unbroken = np.logical_and.accumulate(masks[::-1], axis=0)
    length = unbroken.sum(axis=0)  # snapshots up to the end, 0 where not active
    first = len(masks) - length[length > 0]
    return steps[-1] - steps[first]
