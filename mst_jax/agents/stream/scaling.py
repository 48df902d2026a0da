"""What a stream's rewards are divided by, and in which units its actions are drawn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mst_jax.agents.parts.running_statistics import (
    EPSILON,
    RunningStatistics,
    empty_statistics,
    observed,
    of_sample,
)
from mst_jax.envs.spaces import Action, Discrete
from mst_jax.networks.operations import Operation, Scale, Shift


@struct.dataclass
class RewardScale:
    """Running deviation of the discounted sum of rewards (docs/specs/streaming.md §1.4).

    Attributes:
        trace: the sum so far, float32 scalar.
        statistics: of its values, (1,).
    """

    trace: jax.Array
    statistics: RunningStatistics

    def after(self, reward: jax.Array, over: jax.Array, discount: float) -> "RewardScale":
        """With one more reward, a scalar; the sum begins again *with* an episode's last one."""
        trace = discount * self.trace * (1.0 - over) + reward
        return RewardScale(trace, observed(self.statistics, trace.reshape(1, 1), prior=0.0))

    @property
    def deviation(self) -> jax.Array:
        """What rewards are divided by, a scalar; about 1 after the first."""
        return jnp.sqrt(of_sample(self.statistics).variance[0] + EPSILON)


def empty_scale() -> RewardScale:
    """Before the first reward."""
    return RewardScale(jnp.zeros(()), empty_statistics(1))


class Units(NamedTuple):
    """Units of a policy's actions: `middle + half * x` for a stored action x.

    Attributes:
        middle: (A,) float32.
        half: (A,) float32.
    """

    middle: np.ndarray
    half: np.ndarray

    def drawn(self, stored: jax.Array) -> jax.Array:
        """Stored actions (..., A), of which [-1, 1] is carried out, in the policy's units."""
        return stored * self.half + self.middle

    def stored(self, drawn: jax.Array) -> jax.Array:
        """The inverse."""
        return (drawn - self.middle) / self.half

    def stored_operations(self) -> list[Operation]:
        """`stored` as operations."""
        return [Shift(-self.middle), Scale(1 / self.half)]


def units_of(space: Action, action_scale: str) -> Units | None:
    """The units that a setting asks for; None for those in which actions are stored anyway."""
    if action_scale == "unit" or isinstance(space, Discrete):
        return None
    if space.low is None or space.high is None:
        return None
    low, high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
    return Units((low + high) / 2, (high - low) / 2)
