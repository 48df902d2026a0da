"""Running statistics of observations: SimBa's RSNorm (docs/specs/network-sparsity.md §2.1).

float32 pairs: a value and the rounding error it has collected (Kahan, 1965). A plain float32 mean
stops moving once an observation's share falls below its last digit, long before the millionth step;
float64 would need jax's global 64-bit switch.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mst_jax.networks.operations import Operation, Scale, Shift

INITIAL_COUNT = 1e-4  # weight of the prior mean 0 and variance 1
EPSILON = 1e-8  # added to the variance


@struct.dataclass
class RunningStatistics:
    """Mean and variance of the observations seen so far, float32.

    Attributes:
        mean: (O,).
        mean_error: (O,), what the additions to `mean` have rounded away.
        variance: (O,), population variance.
        variance_error: (O,).
        count: int32 scalar, observations seen.
    """

    mean: jax.Array
    mean_error: jax.Array
    variance: jax.Array
    variance_error: jax.Array
    count: jax.Array


def empty_statistics(size: int) -> RunningStatistics:
    """Mean 0 and variance 1, which the first observation all but replaces."""
    # Separate buffers: a donated state must not hold one twice.
    return RunningStatistics(
        jnp.zeros(size), jnp.zeros(size), jnp.ones(size), jnp.zeros(size), jnp.zeros((), jnp.int32)
    )


def observed(
    statistics: RunningStatistics, observation: jax.Array, prior: float = INITIAL_COUNT
) -> RunningStatistics:
    """The statistics after a batch of observations (E, O), merged at once (Chan et al., 1979).

    Entries behind the O that the statistics are of are left alone, here and in `normalised`.
    `prior` is the weight of the mean and variance that the statistics began with.
    """
    observation, _ = _split(statistics, observation)
    size = observation.shape[0]
    before = statistics.count + prior
    total = before + size
    # From the running mean, not from zero: an offset far above the spread costs no digits.
    differences = (observation - statistics.mean) + statistics.mean_error
    difference = jnp.mean(differences, axis=0)
    spread = jnp.mean(jnp.square(differences - difference), axis=0)  # 0 for one observation
    between = jnp.square(difference) * before / total
    step = between + spread - statistics.variance + statistics.variance_error
    mean, mean_error = _added(statistics.mean, difference * size / total, statistics.mean_error)
    variance, variance_error = _added(
        statistics.variance, step * size / total, statistics.variance_error
    )
    return RunningStatistics(mean, mean_error, variance, variance_error, statistics.count + size)


def normalised(statistics: RunningStatistics, observation: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-8) for observations (..., O)."""
    scaled, rest = _split(statistics, observation)
    scaled = (scaled - statistics.mean) * jax.lax.rsqrt(statistics.variance + EPSILON)
    return scaled if rest is None else jnp.concatenate([scaled, rest], axis=-1)


def normalised_operations(statistics: RunningStatistics, size: int) -> list[Operation]:
    """`normalised` as operations, for observations of `size` numbers."""
    unscaled = size - statistics.mean.shape[-1]
    mean, variance = (np.asarray(x) for x in (statistics.mean, statistics.variance))
    # A shift of its own: an offset far above the spread costs no digits.
    return [
        Shift(np.pad(-mean, (0, unscaled))),
        Scale(np.pad(1 / np.sqrt(variance + EPSILON), (0, unscaled), constant_values=1)),
    ]


def of_sample(statistics: RunningStatistics) -> RunningStatistics:
    """The same with the variance of a sample, p/(n - 1), as Welford's algorithm has it.

    For statistics without a prior. Of fewer than two observations it is 1.
    """
    count = statistics.count.astype(jnp.float32)
    variance = statistics.variance * (count / jnp.maximum(count - 1.0, 1.0))
    return replace(statistics, variance=jnp.where(statistics.count > 1, variance, 1.0))


def _split(
    statistics: RunningStatistics, observation: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """What the statistics are of, and the entries behind it; None if there are none."""
    size = statistics.mean.shape[-1]
    if observation.shape[-1] == size:
        return observation, None
    return observation[..., :size], observation[..., size:]


def _added(value: jax.Array, step: jax.Array, error: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compensated addition: the sum, and how much too large it came out."""
    exact_step = step - error
    total = value + exact_step
    return total, (total - value) - exact_step
