"""MR.Q (Fujimoto et al., 2025) with any regime on any module (docs/specs/mst-and-mrq.md §6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import networks, topology
from mst_jax.agents.base import Agent, Clock, Metrics, Probe, Sizes
from mst_jax.agents.mr import losses
from mst_jax.agents.mr.config import MRQConfig
from mst_jax.agents.mr.core import MRCore, MRState, agent_of, make_core
from mst_jax.agents.parts import draws
from mst_jax.agents.parts.losses import n_step_return
from mst_jax.agents.parts.trained import active_norm, replaced
from mst_jax.agents.parts.vectors import vector_sizes
from mst_jax.networks.operations import Tanh


@dataclass(frozen=True)
class MRQ:
    """MR.Q's deterministic policy and its updates on the shared core."""

    core: MRCore[MRQConfig]
    actor: networks.Actor

    def act(
        self, state: MRState, observation: jax.Array, key: jax.Array | None, clock: Clock | None
    ) -> jax.Array:
        """Action (A,) for an observation (O,), with Gaussian noise when there is a key (§6.8)."""
        zs = self.core.encoder.zs(state.params["encoder"], observation)
        action = jnp.tanh(self.actor.apply(state.params["actor"], zs))
        if key is None:
            return action
        noise = self.core.config.exploration_noise * draws.normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0)

    def operations(self, state: MRState) -> list[networks.Operation]:
        """The policy as it is judged, of an observation."""
        encoder = self.core.encoder.zs_operations(state.params["encoder"])
        return [*encoder, *self.actor.operations(state.params["actor"]), Tanh()]

    def update(
        self, state: MRState, batch: Any, key: jax.Array, step: jax.Array
    ) -> tuple[MRState, jax.Array, Metrics]:
        """One critic step, then one actor step with the new critic, on one batch (§6.4, §6.5).

        Returns the new state, the priorities (B,) of the batch and metrics.
        """
        noise = self.core.config.target_noise * draws.normal(key, batch.action.shape)
        target = self.target(state, batch, noise)
        state, priorities, critic_metrics = self.core.update_critic(state, batch, target, step)
        state, actor_metrics = self.update_actor(state, batch, step)
        return state, priorities, {**critic_metrics, **actor_metrics}

    def target(self, state: MRState, batch: Any, noise: jax.Array) -> jax.Array:
        """The critic's n-step target (B,) from the target networks, with unclipped noise (B, A)."""
        config, targets = self.core.config, state.target_params
        next_zs = self.core.encoder.zs(targets["encoder"], batch.next_observation)
        next_action = losses.target_action(
            targets["actor"], self.actor, next_zs, noise, config.target_noise_clip
        )
        returns, bootstrap = n_step_return(batch.reward, batch.terminated, config.discount)
        return losses.critic_target(
            returns,
            bootstrap,
            self.core.target_values(state, next_zs, next_action),
            state.reward_scale,
            state.target_reward_scale,
        )

    def update_actor(self, state: MRState, batch: Any, step: jax.Array) -> tuple[MRState, Metrics]:
        """One actor step up the mean of both critics, on constant latents."""
        params, opt_state = state.params, state.opt_state["actor"]
        zs = self.core.encoder.zs(params["encoder"], batch.observation)
        loss, grads = jax.value_and_grad(self.actor_loss)(params["actor"], params, zs)
        activity = partial(self.actor.activity, params["actor"], zs)
        actor, opt_state = self.core.trained.step(
            "actor", grads, params["actor"], opt_state, step, activity
        )
        metrics = {"actor/loss": loss, "actor/gradient_norm": active_norm(grads, opt_state)}
        return replaced(state, "actor", actor, opt_state), metrics

    def actor_loss(self, actor: Any, params: Any, zs: jax.Array) -> jax.Array:
        """The actor's loss on constant latents (B, zs), with the other modules of `params`."""
        return losses.actor_loss(
            actor,
            self.actor,
            self.core.critic,
            self.core.encoder,
            params["critic"],
            params["encoder"],
            zs,
            self.core.config.pre_activation_weight,
        )

    def probe(self, state: MRState, batch: Any, key: jax.Array) -> dict[str, Probe]:
        """Critic and actor on one batch, for diagnostics."""
        params = state.params
        zs = self.core.encoder.zs(params["encoder"], batch.observation)
        noise = self.core.config.target_noise * draws.normal(key, batch.action.shape)
        actor = Probe(
            params["actor"],
            topology.masks(state.opt_state["actor"]),
            self.actor.activity(params["actor"], zs),
            zs,
            lambda actor, sample: self.actor_loss(actor, params, sample[None]),
        )
        critic = self.core.critic_probe(state, batch, self.target(state, batch, noise))
        return {"critic": critic, "actor": actor}

    def agent(self) -> Agent:
        """As the trainer takes it."""
        return agent_of(self)._replace(operations=self.operations)


def build_mrq(
    config: MRQConfig,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> MRQ:
    """MR.Q for one seed.

    Args:
        config: settings; read, never changed.
        sizes: of the task.
        total_steps: agent steps of the whole run, from which topology schedules take their end.
        plans: each module's topology plan; made from `config` by default (see `sweep`).

    Raises:
        ValueError: when a setting is impossible.
    """
    actor = networks.make_actor(config.zs_size, vector_sizes(sizes)[1], config.actor.architecture())
    return MRQ(make_core(config, sizes, total_steps, actor.init, plans), actor)
