"""Losses and targets on batched arrays (docs/specs/network-sparsity.md §2.2, §2.3).

Values have a last axis of heads: one, or two of which the smaller counts.
"""

import chex
import jax
import jax.numpy as jnp


def discount_heuristic(episode_length: int | None) -> float:
    """Discount for episodes of L agent steps: (L/5 - 1) / (L/5) within [0.95, 0.995] (§2.4).

    0.99 for DMC's 500 steps; 0.995 when episodes have no limit.
    """
    if episode_length is None:
        return 0.995
    fifth = episode_length / 5
    return min(max((fifth - 1.0) / fifth, 0.95), 0.995)


def td_target(
    reward: jax.Array,
    terminated: jax.Array,
    next_values: jax.Array,
    next_entropy_bonus: jax.Array | float,
    discount: float,
) -> jax.Array:
    """One-step target r + gamma (1 - terminated) (min Q(s', a') + bonus).

    Args:
        reward: (B,).
        terminated: (B,) bool; truncation is not termination.
        next_values: (B, heads) of the target critic.
        next_entropy_bonus: -alpha log pi(a'|s') (B,), or 0.
        discount: per agent step.

    Returns:
        Targets (B,).
    """
    chex.assert_rank([reward, terminated, next_values], [1, 1, 2])
    chex.assert_rank(next_entropy_bonus, {0, 1})
    soft_value = jnp.min(next_values, axis=-1) + next_entropy_bonus
    return reward + discount * (1.0 - terminated) * soft_value


def n_step_return(
    reward: jax.Array, terminated: jax.Array, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Discounted reward until a termination, and the factor of the value that follows.

    Args:
        reward: (B, n).
        terminated: (B, n) bool; truncation is not termination and never gets here.
        discount: per step.

    Returns:
        Sum of gamma^k r_k over steps not after a termination (B,), and gamma^n where none occurred,
        else 0 (B,).
    """
    chex.assert_rank([reward, terminated], 2)
    chex.assert_equal_shape([reward, terminated])
    alive = jnp.ones(reward.shape[0])
    total = jnp.zeros(reward.shape[0])
    for k in range(reward.shape[1]):
        total += discount**k * alive * reward[:, k]
        alive = alive * (1.0 - terminated[:, k])
    return total, alive * discount ** reward.shape[1]


def n_step_target(
    returns: jax.Array,
    bootstrap: jax.Array,
    next_values: jax.Array,
    next_entropy_bonus: jax.Array | float,
) -> jax.Array:
    """Target R + gamma^n (min Q(s_n, a_n) + bonus), with both numbers of `n_step_return`.

    Args:
        returns: discounted rewards (B,).
        bootstrap: factor of the value that follows (B,).
        next_values: (B, heads) of the target critic, n steps on.
        next_entropy_bonus: -alpha log pi(a_n|s_n) (B,), or 0; those of the steps between, which
            are of older policies, are left out.

    Returns:
        Targets (B,).
    """
    chex.assert_rank([returns, bootstrap, next_values], [1, 1, 2])
    chex.assert_rank(next_entropy_bonus, {0, 1})
    return returns + bootstrap * (jnp.min(next_values, axis=-1) + next_entropy_bonus)


def two_hot(values: jax.Array, bins: jax.Array) -> jax.Array:
    """Linear interpolation of scalars between neighbouring bins; (...,) to (..., bins)."""
    lower = jnp.clip(jnp.searchsorted(bins, values, side="right") - 1, 0, bins.shape[0] - 2)
    share = (values - bins[lower]) / (bins[lower + 1] - bins[lower])
    share = jnp.clip(share, 0.0, 1.0)[..., None]
    codes = jnp.arange(bins.shape[0])
    at_lower = codes == lower[..., None]
    at_upper = codes == lower[..., None] + 1
    return jnp.where(at_lower, 1.0 - share, 0.0) + jnp.where(at_upper, share, 0.0)


def critic_loss(values: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of (Q - y)^2 over the batch, summed over heads; (B, heads), (B,) to a scalar."""
    chex.assert_rank([values, target], [2, 1])
    chex.assert_equal_shape_prefix([values, target], 1)
    return jnp.mean(jnp.sum(jnp.square(values - target[:, None]), axis=-1))


def actor_loss(values: jax.Array, entropy_cost: jax.Array | float = 0.0) -> jax.Array:
    """Mean of alpha log pi - min Q; values (B, heads), cost alpha log pi (B,) or 0, to a scalar."""
    chex.assert_rank([values, entropy_cost], [2, {0, 1}])
    return jnp.mean(entropy_cost - jnp.min(values, axis=-1))


def temperature_loss(
    log_temperature: jax.Array, entropy: jax.Array, target_entropy: float
) -> jax.Array:
    """Product alpha (H - H_target); the entropy is a constant here; scalars."""
    chex.assert_rank([log_temperature, entropy], 0)
    return jnp.exp(log_temperature) * (entropy - target_entropy)
