"""Entropy-regularised policy improvement, for SAC on observations and MR.SAC on latents.

The state is a dataclass with `params` and `opt_state` by module, `temperature` among them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import topology
from mst_jax.agents.base import Metrics, Probe
from mst_jax.agents.parts import draws, losses, tanh_gaussian
from mst_jax.agents.parts.trained import Trained, active_norm, replaced
from mst_jax.networks import GaussianActor

ValuesOf = Callable[[jax.Array, jax.Array], jax.Array]


def act(actor: GaussianActor, params: Any, features: jax.Array, key: jax.Array | None) -> jax.Array:
    """A sample of the policy, features (I,) to (A,); without a key, its mean's tanh."""
    mean, raw_log_std = actor.apply(params, features)
    if key is None:
        return jnp.tanh(mean)
    return tanh_gaussian.sample(mean, raw_log_std, draws.normal(key, mean.shape))[0]


def loss(
    actor: GaussianActor,
    params: Any,
    features: jax.Array,
    values_of: ValuesOf,
    temperature: jax.Array,
    noise: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The actor's loss, and log pi of its actions (B,); arguments as of `update_actor`."""
    action, log_probability = tanh_gaussian.sample(*actor.apply(params, features), noise)
    cost = temperature * log_probability
    return losses.actor_loss(values_of(features, action), cost), log_probability


def actor_probe(
    actor: GaussianActor,
    state: Any,
    features: jax.Array,
    values_of: ValuesOf,
    temperature: jax.Array,
    noise: jax.Array,
) -> Probe:
    """The actor on a batch; arguments as of `update_actor`."""

    def sample_loss(params: Any, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
        own, own_noise = (x[None] for x in sample)
        return loss(actor, params, own, values_of, temperature, own_noise)[0]

    params, masks = state.params["actor"], topology.masks(state.opt_state["actor"])
    return Probe(params, masks, actor.activity(params, features), (features, noise), sample_loss)


def update_actor(
    trained: Trained,
    actor: GaussianActor,
    state: Any,
    features: jax.Array,
    values_of: ValuesOf,
    temperature: jax.Array,
    noise: jax.Array,
    step: jax.Array,
) -> tuple[Any, jax.Array, Metrics]:
    """One actor step (docs/specs/network-sparsity.md §2.2).

    Args:
        trained: the agent's modules.
        actor: policy functions.
        state: agent state.
        features: the policy's inputs (B, I), constant.
        values_of: (features (B, I), actions (B, A)) -> values (B, heads).
        temperature: scalar, in the unit of those values.
        noise: standard normal (B, A).
        step: number of the update.

    Returns:
        The state, the entropy just measured (a scalar), and metrics.
    """
    params, opt_state = state.params["actor"], state.opt_state["actor"]

    def loss_of(params: Any) -> tuple[jax.Array, jax.Array]:
        return loss(actor, params, features, values_of, temperature, noise)

    (value, log_probability), grads = topology.value_and_grad(loss_of, has_aux=True)(params)
    activity = partial(actor.activity, params, features)
    params, opt_state = trained.step(
        "actor", grads, params, opt_state, step, activity, lambda params: loss_of(params)[0]
    )
    entropy = -jnp.mean(log_probability)
    metrics = {
        "actor/loss": value,
        "actor/entropy": entropy,
        "actor/gradient_norm": active_norm(grads, opt_state),
    }
    return replaced(state, "actor", params, opt_state), entropy, metrics


def update_temperature(
    trained: Trained, state: Any, entropy: jax.Array, target_entropy: float, step: jax.Array
) -> tuple[Any, Metrics]:
    """One step of the temperature towards the entropy aimed at."""
    old = state.params["temperature"]
    loss, grad = jax.value_and_grad(losses.temperature_loss)(old, entropy, target_entropy)
    new, opt_state = trained.step("temperature", grad, old, state.opt_state["temperature"], step)
    metrics = {"temperature/loss": loss, "temperature/value": jnp.exp(new)}
    return replaced(state, "temperature", new, opt_state), metrics
