"""MR.Q's losses and targets on batched arrays (docs/specs/mst-and-mrq.md §6.3 to §6.6)."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from mst_jax.agents.parts.losses import two_hot
from mst_jax.networks import Actor, Critic, Encoder, Params


class EncoderLossWeights(NamedTuple):
    """Weights of the three prediction errors (§6.8: λ dyn / reward / done)."""

    dynamics: float
    reward: float
    terminal: jax.Array | float


def symexp_bins(count: int, limit: float) -> jax.Array:
    """Bin centres sign(x)(exp|x|-1) for x evenly spaced in [-limit, limit]; (count,)."""
    x = jnp.linspace(-limit, limit, count)
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def encoder_loss(
    params: Params,
    encoder: Encoder,
    observation: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    target_zs: jax.Array,
    bins: jax.Array,
    weights: EncoderLossWeights,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Unrolled prediction error (§6.3), summed over the horizon H and averaged over the batch.

    Args:
        params: encoder parameters.
        encoder: encoder functions.
        observation: first observations (B, O).
        action: (B, H, A).
        reward: unscaled rewards (B, H).
        terminated: (B, H) bool; steps after a termination do not count.
        target_zs: target latents of the H following observations (B, H, zs), without gradient.
        bins: reward bin centres.
        weights: weights of the three terms.

    Returns:
        The loss and its three unweighted terms.
    """
    chex.assert_rank([observation, action, target_zs], [2, 3, 3])
    chex.assert_rank([reward, terminated], 2)
    chex.assert_equal_shape_prefix([action, reward, terminated, target_zs], 2)
    zs = encoder.zs(params, observation)
    alive = jnp.ones(reward.shape[0])
    dynamics = reward_error = terminal_error = jnp.zeros(())
    for k in range(reward.shape[1]):
        done = terminated[:, k].astype(zs.dtype)
        prediction = encoder.predict(params, encoder.zsa(params, zs, action[:, k]))
        zs = prediction.next_zs
        squared = jnp.mean(jnp.square(zs - target_zs[:, k]), axis=-1)
        code = two_hot(reward[:, k], bins)
        cross_entropy = -jnp.sum(code * jax.nn.log_softmax(prediction.reward_logits), axis=-1)
        dynamics += jnp.mean(squared * alive)
        reward_error += jnp.mean(cross_entropy * alive)
        terminal_error += jnp.mean(jnp.square(prediction.terminal - done) * alive)
        alive = alive * (1.0 - done)
    loss = (
        weights.dynamics * dynamics
        + weights.reward * reward_error
        + weights.terminal * terminal_error
    )
    return loss, {"dynamics": dynamics, "reward": reward_error, "terminal": terminal_error}


def target_action(
    params: Params, actor: Actor, next_zs: jax.Array, noise: jax.Array, noise_clip: float
) -> jax.Array:
    """Target policy with clipped smoothing noise (§6.4); (B, zs), scaled noise (B, A) to (B, A)."""
    chex.assert_rank([next_zs, noise], 2)
    action = jnp.tanh(actor.apply(params, next_zs))
    return jnp.clip(action + jnp.clip(noise, -noise_clip, noise_clip), -1.0, 1.0)


def critic_target(
    returns: jax.Array,
    bootstrap: jax.Array,
    next_values: jax.Array,
    reward_scale: jax.Array,
    target_reward_scale: jax.Array,
) -> jax.Array:
    """Target in units of the reward scale (§6.4); (B,), (B,), next values (B, 2) to (B,)."""
    chex.assert_rank([returns, bootstrap, next_values], [1, 1, 2])
    chex.assert_equal_shape_prefix([returns, bootstrap, next_values], 1)
    chex.assert_rank([reward_scale, target_reward_scale], 0)
    next_value = jnp.min(next_values, axis=-1)
    return (returns + bootstrap * next_value * target_reward_scale) / reward_scale


def critic_loss(values: jax.Array, target: jax.Array) -> jax.Array:
    """Huber loss (beta 1) of both heads (B, 2) against one target (B,) (§6.4); a scalar."""
    chex.assert_rank([values, target], [2, 1])
    chex.assert_equal_shape_prefix([values, target], 1)
    error = jnp.abs(values - target[:, None])
    huber = jnp.where(error < 1.0, 0.5 * jnp.square(error), error - 0.5)
    return jnp.mean(huber)


def actor_loss(
    params: Params,
    actor: Actor,
    critic: Critic,
    encoder: Encoder,
    critic_params: Params,
    encoder_params: Params,
    zs: jax.Array,
    pre_activation_weight: float,
) -> jax.Array:
    """Negative mean value of both heads plus a pre-activation penalty (§6.5); zs is constant."""
    pre_activation = actor.apply(params, zs)
    zsa = encoder.zsa(encoder_params, zs, jnp.tanh(pre_activation))
    values = critic.apply(critic_params, zsa)
    chex.assert_rank([pre_activation, values], 2)
    return -jnp.mean(values) + pre_activation_weight * jnp.mean(jnp.square(pre_activation))


def lap_priority(
    values: jax.Array, target: jax.Array, minimum: float, exponent: float
) -> jax.Array:
    """Priority max(max_j |Q_j - y|, minimum)^exponent (§6.9); (B, 2), target (B,) to (B,)."""
    chex.assert_rank([values, target], [2, 1])
    chex.assert_equal_shape_prefix([values, target], 1)
    error = jnp.max(jnp.abs(values - target[:, None]), axis=-1)
    return jnp.maximum(error, minimum) ** exponent
