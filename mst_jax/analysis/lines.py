"""Quantities over agent steps, as the pictures of several seeds take them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Lines(NamedTuple):
    """One quantity.

    Attributes:
        steps: (T,) agent steps.
        values: (S, T), a row for each seed; NaN is a gap.
    """

    steps: np.ndarray
    values: np.ndarray


Panels = Mapping[str, Mapping[str, Lines]]  # title of a panel -> name of a quantity -> lines
