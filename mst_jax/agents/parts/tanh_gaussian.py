"""SAC's squashed Gaussian policy (Haarnoja et al., 2018; docs/specs/network-sparsity.md §2.1)."""

import math

import jax
import jax.numpy as jnp

MIN_LOG_STD, MAX_LOG_STD = -10.0, 2.0


def bounded_log_std(raw: jax.Array) -> jax.Array:
    """Squashes a network's output (..., A) smoothly into [-10, 2]."""
    return MIN_LOG_STD + 0.5 * (MAX_LOG_STD - MIN_LOG_STD) * (1.0 + jnp.tanh(raw))


def sample(
    mean: jax.Array, raw_log_std: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A reparameterised action and its log-probability.

    Args:
        mean: (..., A), before the tanh.
        raw_log_std: (..., A), before it is bounded.
        noise: standard normal (..., A).

    Returns:
        Action (..., A) in [-1, 1], and log pi(action) summed over A (...,).
    """
    log_std = bounded_log_std(raw_log_std)
    before_tanh = mean + jnp.exp(log_std) * noise
    log_gaussian = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi)
    log_probability = jnp.sum(log_gaussian - log_tanh_slope(before_tanh), axis=-1)
    return jnp.tanh(before_tanh), log_probability


def log_tanh_slope(x: jax.Array) -> jax.Array:
    """log(1 - tanh(x)^2), also where the tanh is 1 to all digits; the shape stays."""
    return 2.0 * (math.log(2.0) - x - jax.nn.softplus(-2.0 * x))
