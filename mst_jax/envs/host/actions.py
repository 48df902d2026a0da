"""From the agent's actions in [-1, 1] to a host environment's own bounds."""

import numpy as np

from mst_jax.envs.spaces import Continuous


def affine(minimum: np.ndarray, maximum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale, float64 [A], that take [-1, 1] to [minimum, maximum].

    An actuator without limits (dm_control gives it +-1e10) takes the action as it is. One that is
    limited on one side only takes it in its own unit too, moved no further than the limit demands:
    [0, inf) is driven within [0, 2], [-5, inf) within [-1, 1], (-inf, -3] within [-5, -3].
    """
    minimum, maximum = (np.asarray(bound, np.float64) for bound in (minimum, maximum))
    limited = maximum - minimum < 1e10
    low = np.where(limited, minimum, np.clip(-1.0, minimum, maximum - 2))
    high = np.where(limited, maximum, np.minimum(low + 2, maximum))
    return (high + low) / 2, (high - low) / 2


def continuous(offset: np.ndarray, scale: np.ndarray) -> Continuous:
    """The action space of which `affine` says how [-1, 1] is driven."""
    low, high = (_decimals(bound) for bound in (offset - scale, offset + scale))
    if set(low) == {-1.0} and set(high) == {1.0}:
        return Continuous(len(low))
    return Continuous(len(low), low, high)


def _decimals(bounds: np.ndarray) -> tuple[float, ...]:
    """Bounds as their authors wrote them: some suites hold 0.4 in float32, others in float64."""
    return tuple(float(str(bound)) for bound in np.asarray(bounds, np.float32))
