"""The policy's density and entropy, and losses of which the steps of a stream are the gradients."""

import math

import chex
import jax
import jax.numpy as jnp

HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


def log_density(action: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """The log-density of N(mean, std²), summed over its entries; (A,) each, to a scalar."""
    chex.assert_rank([action, mean, std], 1)
    z = (action - mean) / std
    return jnp.sum(-0.5 * jnp.square(z) - jnp.log(std) - HALF_LOG_TAU)


def entropy(std: jax.Array) -> jax.Array:
    """Of a normal distribution with standard deviations (A,), to a scalar."""
    chex.assert_rank(std, 1)
    return jnp.sum(jnp.log(std) + HALF_LOG_TAU + 0.5)


def critic_loss(value: jax.Array, target: jax.Array) -> jax.Array:
    """Half the squared error of a value towards a target; scalars."""
    chex.assert_rank([value, target], 0)
    return 0.5 * jnp.square(value - target)


def actor_loss(error: jax.Array, action: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """-δ log π(action); a scalar and (A,) each, to a scalar."""
    chex.assert_rank(error, 0)
    return -error * log_density(action, mean, std)
