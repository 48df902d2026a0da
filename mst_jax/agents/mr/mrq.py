"""MR.Q (Fujimoto et al., 2025) with any regime on any module (docs/specs/mst-and-mrq.md §6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from mst_jax import networks, topology
from mst_jax.agents.base import Agent, Clock, Metrics, Probe, Sizes
from mst_jax.agents.mr import losses
from mst_jax.agents.mr.config import MRQConfig
from mst_jax.agents.mr.core import MRCore, MRState, agent_of, make_core
from mst_jax.agents.mr.policies import GumbelPolicy, Noise, Policy, policy_for
from mst_jax.agents.parts.trained import active_norm, replaced
from mst_jax.networks.operations import Tanh


@dataclass(frozen=True)
class MRQ:
    """MR.Q's policy and its updates on the shared core.

    Attributes:
        core: see `MRCore`.
        actor: of latents.
        policy: what becomes of the actor's outputs.
    """

    core: MRCore[MRQConfig]
    actor: networks.Actor
    policy: Policy

    def act(
        self, state: MRState, observation: jax.Array, key: jax.Array | None, clock: Clock | None
    ) -> jax.Array:
        """Action (*A,) for an observation (*O,), with noise when there is a key (§6.8)."""
        return self.policy.act(self.outputs(state, observation), key)

    def outputs(self, state: MRState, observation: jax.Array) -> jax.Array:
        """The actor's outputs (A,) for an observation (*O,)."""
        zs = self.core.encoder.zs(state.params["encoder"], observation)
        return self.actor.apply(state.params["actor"], zs)

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
        noise = self.policy.noise(key, len(batch.action))
        target = self.target(state, batch, noise)
        state, priorities, critic_metrics = self.core.update_critic(state, batch, target, step)
        state, actor_metrics = self.update_actor(state, batch, noise, step)
        return state, priorities, {**critic_metrics, **actor_metrics}

    def target(self, state: MRState, batch: Any, noise: Noise) -> jax.Array:
        """The critic's n-step target (B,) from the target networks."""
        targets = state.target_params
        next_zs = self.core.encoder.zs(targets["encoder"], batch.next_observation)
        next_action = self.policy.target(self.actor.apply(targets["actor"], next_zs), noise.target)
        returns, bootstrap = self.core.returns(batch)
        return losses.critic_target(
            returns,
            bootstrap,
            self.core.target_values(state, next_zs, next_action),
            state.reward_scale,
            state.target_reward_scale,
        )

    def update_actor(
        self, state: MRState, batch: Any, noise: Noise, step: jax.Array
    ) -> tuple[MRState, Metrics]:
        """One actor step up the mean of both critics, on constant latents."""
        params, opt_state = state.params, state.opt_state["actor"]
        zs = self.core.encoder.zs(params["encoder"], batch.observation)

        def loss_of(actor: Any) -> jax.Array:
            return self.actor_loss(actor, params, zs, noise.actor)

        loss, grads = topology.value_and_grad(loss_of)(params["actor"])
        activity = partial(self.actor.activity, params["actor"], zs)
        actor, opt_state = self.core.trained.step(
            "actor", grads, params["actor"], opt_state, step, activity, loss_of
        )
        metrics = {"actor/loss": loss, "actor/gradient_norm": active_norm(grads, opt_state)}
        return replaced(state, "actor", actor, opt_state), metrics

    def actor_loss(
        self, actor: Any, params: Any, zs: jax.Array, noise: jax.Array | None
    ) -> jax.Array:
        """The actor's loss on constant latents (B, zs), with the other modules of `params`."""
        return losses.actor_loss(
            actor,
            self.actor,
            self.core.critic,
            self.core.encoder,
            params["critic"],
            params["encoder"],
            zs,
            partial(self.policy.differentiable, noise=noise),
            self.core.config.pre_activation_weight,
        )

    def probe(self, state: MRState, batch: Any, key: jax.Array) -> dict[str, Probe]:
        """Critic and actor on one batch, for diagnostics."""
        params = state.params
        zs = self.core.encoder.zs(params["encoder"], batch.observation)
        noise = self.policy.noise(key, len(batch.action))

        def loss(actor: Any, sample: Any) -> jax.Array:
            return self.actor_loss(actor, params, *jax.tree.map(lambda x: x[None], sample))

        actor = Probe(
            params["actor"],
            topology.masks(state.opt_state["actor"]),
            self.actor.activity(params["actor"], zs),
            (zs, noise.actor),
            loss,
        )
        critic = self.core.critic_probe(state, batch, self.target(state, batch, noise))
        return {"critic": critic, "actor": actor}

    def agent(self) -> Agent:
        """As the trainer takes it."""
        agent = agent_of(self)
        if isinstance(self.policy, GumbelPolicy):
            return agent._replace(evaluate=self.evaluate)
        if self.core.encoder.positions:
            return agent
        return agent._replace(operations=self.operations)

    def evaluate(self, state: MRState, observation: jax.Array, key: jax.Array) -> jax.Array:
        """The choice that is judged, a scalar, for an observation (*O,)."""
        assert isinstance(self.policy, GumbelPolicy)  # agents of other policies judge `act`
        return self.policy.evaluate(self.outputs(state, observation), key)


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
    policy = policy_for(config, sizes)
    actor = networks.make_actor(config.zs_size, policy.size, config.actor.architecture())
    core = make_core(config, sizes, policy.size, total_steps, actor.init, plans, code=policy.code)
    return MRQ(core, actor, policy)
