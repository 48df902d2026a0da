"""From the agent's actions in [-1, 1] to a host environment's own bounds."""

import numpy as np


def affine(minimum: np.ndarray, maximum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale, float64 [A], that take [-1, 1] to [minimum, maximum].

    An actuator without limits (dm_control gives it +-1e10) takes the action as it is.
    """
    minimum, maximum = (np.asarray(bound, np.float64) for bound in (minimum, maximum))
    limited = maximum - minimum < 1e10
    offset = np.where(limited, (maximum + minimum) / 2, 0.0)
    scale = np.where(limited, (maximum - minimum) / 2, 1.0)
    return offset, scale
