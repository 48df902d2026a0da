"""From the agent's actions in [-1, 1] to a host environment's own bounds."""

import numpy as np


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
