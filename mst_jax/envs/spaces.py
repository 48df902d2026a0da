"""What an environment shows and what it takes: the spaces of a task's spec.

Nothing here imports jax before it draws random actions, because worker processes import this
module. Functions of arrays take NumPy's and jax's alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import jax

FILLS = ("repeat", "zeros")


class Observation(NamedTuple):
    """One observation.

    Attributes:
        shape: of it, such as (O,) or (height, width, channels).
        dtype: `float32`, or `uint8` for pixels.
        history: how many equal parts the last axis holds, oldest first: an environment that shows
            the last frames shows them all, and replay stores each only once.
        fill: what stands for frames before an episode's first: `repeat` (that frame) or `zeros`.
        unscaled: trailing entries of the last axis that normalisers leave alone, such as the time.
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8"] = "float32"
    history: int = 1
    fill: Literal["repeat", "zeros"] = "repeat"
    unscaled: int = 0

    @property
    def size(self) -> int:
        """How many numbers it is."""
        return math.prod(self.shape)

    @property
    def is_vector(self) -> bool:
        """Whether it is one axis of float32, without a history."""
        return len(self.shape) == 1 and self.dtype == "float32" and self.history == 1

    def newest(self, observation: Any) -> Any:
        """The newest part [..., channels] of observations [..., history * channels]."""
        return observation[..., -(self.shape[-1] // self.history) :]

    def fresh(self, observation: Any) -> Any:
        """Observations as they would be if their newest part were the first of an episode."""
        if self.history == 1:
            return observation
        xp = observation.__array_namespace__()
        newest = self.newest(observation)
        before = newest if self.fill == "repeat" else xp.zeros_like(newest)
        return xp.concat([before] * (self.history - 1) + [newest], axis=-1)


@dataclass(frozen=True)  # not a tuple: it must differ from Discrete of the same number
class Continuous:
    """Actions of `size` numbers in [-1, 1].

    Attributes:
        size: A.
        low: what -1 of each stands for in the task's own units; None, like `high`, where the task
            has none: they are -1 and 1.
        high: what 1 of each stands for.
    """

    size: int
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(A,)."""
        return (self.size,)

    @property
    def dtype(self) -> str:
        """Of an action."""
        return "float32"

    def zeros(self, *lead: int) -> np.ndarray:
        """Actions (*lead, A) that do nothing."""
        return np.zeros((*lead, self.size), np.float32)

    def sample(self, key: jax.Array) -> jax.Array:
        """One action (A,), uniform."""
        import jax

        return jax.random.uniform(key, (self.size,), minval=-1.0, maxval=1.0)

    def safe(self, action: Any) -> Any:
        """Actions of any shape with zeros where they are not finite, as they are stored."""
        xp = action.__array_namespace__()
        return xp.where(xp.isfinite(action), action, xp.zeros_like(action))

    def bounded(self, action: Any) -> Any:
        """Stored actions as they are carried out: within [-1, 1]."""
        xp = action.__array_namespace__()
        return xp.clip(action, -1.0, 1.0)


@dataclass(frozen=True)
class Discrete:
    """Actions that are one of `count` choices.

    Attributes:
        count: of choices, numbered from 0.
    """

    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """()."""
        return ()

    @property
    def dtype(self) -> str:
        """Of an action."""
        return "int32"

    def zeros(self, *lead: int) -> np.ndarray:
        """The first choice, (*lead,)."""
        return np.zeros(lead, np.int32)

    def sample(self, key: jax.Array) -> jax.Array:
        """One action, a scalar, uniform."""
        import jax

        return jax.random.randint(key, (), 0, self.count)

    def safe(self, action: Any) -> Any:
        """Actions of any shape with the first choice where they are none."""
        xp = action.__array_namespace__()
        return xp.where((action >= 0) & (action < self.count), action, xp.zeros_like(action))

    def bounded(self, action: Any) -> Any:
        """Stored actions as they are carried out: as they are."""
        return action


Action = Continuous | Discrete
