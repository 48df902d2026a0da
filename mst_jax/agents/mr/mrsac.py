"""MR.SAC: a tanh-Gaussian policy and entropy-regularised critics on MR.Q's latents.

The published study names it without a description; ours is docs/specs/mst-and-mrq.md §7 row 13.
Everything that is not the policy is MR.Q's: encoder bursts, hard target copies, three-step returns,
prioritised replay, Huber loss. The temperature is in units of reward. Values are in units of the
reward scale, so wherever entropy meets a value it is divided by that scale too, and a new scale
does not change what the policy aims at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import networks, topology
from mst_jax.agents.base import Agent, Clock, Metrics, Probe, Sizes
from mst_jax.agents.mr import losses
from mst_jax.agents.mr.config import MRSACConfig
from mst_jax.agents.mr.core import MRCore, MRState, agent_of, make_core
from mst_jax.agents.parts import draws, soft_policy, tanh_gaussian
from mst_jax.agents.parts.vectors import action_size
from mst_jax.networks.operations import Tanh


@dataclass(frozen=True)
class MRSAC:
    """MR.SAC's policy and its updates on the shared core."""

    core: MRCore[MRSACConfig]
    actor: networks.GaussianActor
    target_entropy: float

    def act(
        self, state: MRState, observation: jax.Array, key: jax.Array | None, clock: Clock | None
    ) -> jax.Array:
        """A sample of the policy (A,) for an observation (O,); without a key, its mean's tanh."""
        zs = self.core.encoder.zs(state.params["encoder"], observation)
        return soft_policy.act(self.actor, state.params["actor"], zs, key)

    def operations(self, state: MRState) -> list[networks.Operation]:
        """The policy as it is judged, of an observation."""
        encoder = self.core.encoder.zs_operations(state.params["encoder"])
        return [*encoder, *self.actor.operations(state.params["actor"]), Tanh()]

    def update(
        self, state: MRState, batch: Any, key: jax.Array, step: jax.Array
    ) -> tuple[MRState, jax.Array, Metrics]:
        """Critic, actor with the new critic, temperature, once each, on one batch."""
        core = self.core
        noises = draws.normal(key, (2, *batch.action.shape))
        target = self.target(state, batch, noises[0])
        state, priorities, critic_metrics = core.update_critic(state, batch, target, step)
        state, entropy, actor_metrics = soft_policy.update_actor(
            core.trained,
            self.actor,
            state,
            *self.actor_inputs(state, batch),
            noises[1],
            step,
        )
        state, temperature_metrics = soft_policy.update_temperature(
            core.trained, state, entropy, self.target_entropy, step
        )
        return state, priorities, {**critic_metrics, **actor_metrics, **temperature_metrics}

    def actor_inputs(
        self, state: MRState, batch: Any
    ) -> tuple[jax.Array, soft_policy.ValuesOf, jax.Array]:
        """Constant latents (B, zs), values of actions on them, the temperature in their unit."""
        core, encoder_params, critic_params = (
            self.core,
            state.params["encoder"],
            state.params["critic"],
        )

        def values_of(zs: jax.Array, action: jax.Array) -> jax.Array:
            return core.critic.apply(critic_params, core.encoder.zsa(encoder_params, zs, action))

        zs = core.encoder.zs(encoder_params, batch.observation)
        return zs, values_of, jnp.exp(state.params["temperature"]) / state.reward_scale

    def probe(self, state: MRState, batch: Any, key: jax.Array) -> dict[str, Probe]:
        """Critic and actor on one batch, for diagnostics."""
        noises = draws.normal(key, (2, *batch.action.shape))
        target = self.target(state, batch, noises[0])
        inputs = self.actor_inputs(state, batch)
        return {
            "critic": self.core.critic_probe(state, batch, target),
            "actor": soft_policy.actor_probe(self.actor, state, *inputs, noises[1]),
        }

    def target(self, state: MRState, batch: Any, noise: jax.Array) -> jax.Array:
        """The critic's n-step soft target (B,), in units of the reward scale.

        Target encoder, actor and critic are copies of one moment, so the next action is the target
        policy's. Entropy counts where the return bootstraps, not along the way: those actions were
        not this policy's.
        """
        targets, scale = state.target_params, state.target_reward_scale
        next_zs = self.core.encoder.zs(targets["encoder"], batch.next_observation)
        next_action, log_probability = tanh_gaussian.sample(
            *self.actor.apply(targets["actor"], next_zs), noise
        )
        cost = jnp.exp(state.params["temperature"]) * log_probability / scale
        returns, bootstrap = self.core.returns(batch)
        values = self.core.target_values(state, next_zs, next_action) - cost[:, None]
        return losses.critic_target(returns, bootstrap, values, state.reward_scale, scale)

    def agent(self) -> Agent:
        """As the trainer takes it."""
        operations = None if self.core.encoder.positions else self.operations
        return agent_of(self)._replace(operations=operations)


def build_mrsac(
    config: MRSACConfig,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> MRSAC:
    """MR.SAC for one seed. Arguments and errors are those of `build_mrq`."""
    size = action_size(sizes)
    actor = networks.make_gaussian_actor(config.zs_size, size, config.actor.architecture())
    core = make_core(config, sizes, size, total_steps, actor.init, plans, config.temperature)
    return MRSAC(core, actor, config.temperature.target_entropy(size))
