"""What a policy computes, as a list of operations that any language can carry out one by one.

Networks write themselves as operations of their parameters, and every form of an exported policy
follows from the list (docs/export.md). An operation takes the value x (..., size) and gives the
next; arrays are NumPy's, float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mst_jax.topology.compact import densified


@dataclass(frozen=True, eq=False)
class Dense:
    """`x @ kernel + bias`; masked weights are zeros.

    Attributes:
        kernel: (inputs, outputs).
        bias: (outputs,).
    """

    kernel: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """`(x - mean) / sqrt(variance + epsilon)` over the last axis.

    Attributes:
        epsilon: positive.
    """

    epsilon: float


@dataclass(frozen=True, eq=False)
class Scale:
    """`x * factor`.

    Attributes:
        factor: (size,).
    """

    factor: np.ndarray


@dataclass(frozen=True, eq=False)
class Shift:
    """`x + offset`.

    Attributes:
        offset: (size,).
    """

    offset: np.ndarray


@dataclass(frozen=True, eq=False)
class Elu:
    """`x` where it is positive, else `exp(x) - 1`."""


@dataclass(frozen=True, eq=False)
class Relu:
    """`x` where it is positive, else 0."""


@dataclass(frozen=True, eq=False)
class LeakyRelu:
    """`x` where it is positive, else `slope * x`.

    Attributes:
        slope: of the negative side.
    """

    slope: float


@dataclass(frozen=True, eq=False)
class Tanh:
    """`tanh(x)`."""


@dataclass(frozen=True, eq=False)
class Keep:
    """Puts x on a pile, for a shortcut; x stays."""


@dataclass(frozen=True, eq=False)
class Add:
    """Takes what lies on top of the pile and adds it to x."""


@dataclass(frozen=True, eq=False)
class Bounded:
    """`x` within [low, high], and 0 where it is not finite: an action as it is carried out.

    Attributes:
        low: smallest.
        high: largest.
    """

    low: float
    high: float


Operation = Dense | LayerNorm | Scale | Shift | Elu | Relu | LeakyRelu | Tanh | Keep | Add | Bounded


def dense_of(params: Mapping[str, Any]) -> Dense:
    """The linear layer of flax's parameters {kernel, bias}; a kernel in compact storage whole."""
    kernel, bias = densified(params["kernel"]), params["bias"]
    return Dense(np.asarray(kernel), np.asarray(bias))
