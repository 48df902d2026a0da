"""A critic's step towards targets, for SAC, DDPG and TD3 on observations and MR.Q on latents.

The state is a dataclass with `params` and `opt_state` by module, `critic` among them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import topology
from mst_jax.agents.base import Metrics, Probe
from mst_jax.agents.parts.trained import Trained, active_norm, replaced
from mst_jax.networks import Critic

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (values (B, heads), targets (B,)) -> scalar


def critic_probe(
    critic: Critic, state: Any, inputs: jax.Array, target: jax.Array, loss: Loss
) -> Probe:
    """The critic on a batch; arguments as of `update_critic`."""

    def sample_loss(params: Any, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
        own, own_target = (x[None] for x in sample)
        return loss(critic.apply(params, own), own_target)

    params, masks = state.params["critic"], topology.masks(state.opt_state["critic"])
    return Probe(params, masks, critic.activity(params, inputs), (inputs, target), sample_loss)


def update_critic(
    trained: Trained,
    critic: Critic,
    state: Any,
    inputs: jax.Array,
    target: jax.Array,
    loss: Loss,
    step: jax.Array,
) -> tuple[Any, jax.Array, Metrics]:
    """One critic step.

    Args:
        trained: the agent's modules.
        critic: value functions.
        state: agent state.
        inputs: the critic's (B, I), constant.
        target: (B,), in the unit of the values.
        loss: of the values of all heads.
        step: number of the update.

    Returns:
        The state, the values before the step (B, heads), and metrics.
    """
    params, opt_state = state.params["critic"], state.opt_state["critic"]

    def loss_of(params: Any) -> tuple[jax.Array, jax.Array]:
        values = critic.apply(params, inputs)
        return loss(values, target), values

    (value, values), grads = topology.value_and_grad(loss_of, has_aux=True)(params)
    activity = partial(critic.activity, params, inputs)
    params, opt_state = trained.step(
        "critic", grads, params, opt_state, step, activity, lambda params: loss_of(params)[0]
    )
    metrics = {
        "critic/loss": value,
        "critic/value": jnp.mean(values),
        "critic/gradient_norm": active_norm(grads, opt_state),
    }
    return replaced(state, "critic", params, opt_state), values, metrics
