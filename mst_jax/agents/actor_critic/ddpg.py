"""DDPG (Lillicrap et al., 2016) on SimBa networks, with any training regime on either module.

The same Gaussian noise explores, smooths the actor's loss and the target; there is no target actor
(docs/specs/network-sparsity.md §2.3). One update: actor, critic with the new actor, target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic

import jax
import jax.numpy as jnp

from mst_jax import networks, topology
from mst_jax.agents.actor_critic.config import DDPGConfig
from mst_jax.agents.actor_critic.core import (
    ActorCritic,
    ActorCriticState,
    Batch,
    State,
    agent_of,
    make_actor_critic,
)
from mst_jax.agents.base import Agent, Clock, Metrics, Probe, Sizes
from mst_jax.agents.parts import draws, losses
from mst_jax.agents.parts.vectors import vector_sizes
from mst_jax.networks.operations import Tanh


@dataclass(frozen=True)
class DDPG(Generic[State]):
    """DDPG's policy and update on the shared core."""

    core: ActorCritic[DDPGConfig]
    actor: networks.Actor

    def act(
        self,
        state: State,
        observation: jax.Array,
        key: jax.Array | None,
        clock: Clock | None,
    ) -> jax.Array:
        """Action (A,) for an observation (O,), with noise when there is a key."""
        features = self.core.normalise(state, observation)
        action = jnp.tanh(self.actor.apply(state.params["actor"], features))
        return action if key is None else self.noisy(action, draws.normal(key, action.shape))

    def operations(self, state: State) -> list[networks.Operation]:
        """The policy as it is judged, of a raw observation."""
        actor = self.actor.operations(state.params["actor"])
        return [*self.core.normalise_operations(state), *actor, Tanh()]

    def noisy(self, action: jax.Array, noise: jax.Array) -> jax.Array:
        """Actions with scaled standard normal noise of the same shape, within [-1, 1]."""
        return jnp.clip(action + self.core.config.exploration_noise * noise, -1.0, 1.0)

    def noisy_action(self, params: Any, observation: jax.Array, noise: jax.Array) -> jax.Array:
        """Noisy actions (B, A) of normalised observations (B, O)."""
        return self.noisy(jnp.tanh(self.actor.apply(params, observation)), noise)

    def update(
        self, state: State, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[State, Metrics]:
        """Actor, critic and target, once each, on one batch."""
        noises = draws.normal(key, (2, *batch.action.shape))
        state, actor_metrics = self.update_actor(state, batch, noises[0], step)
        next_action = self.next_action(state, batch, noises[1])
        state, critic_metrics = self.core.update_critic(
            state, batch, next_action, 0.0, step, self.core.config.tau
        )
        return state, {**actor_metrics, **critic_metrics}

    def next_action(self, state: State, batch: Batch, noise: jax.Array) -> jax.Array:
        """The actions (B, A) whose value the critic's target takes."""
        return self.noisy_action(state.params["actor"], batch.next_observation, noise)

    def update_actor(
        self, state: State, batch: Batch, noise: jax.Array, step: jax.Array
    ) -> tuple[State, Metrics]:
        """One actor step up the critic's value of its noisy actions."""
        return self.core.update_actor(
            state,
            lambda actor: self.actor_loss(actor, state.params["critic"], batch.observation, noise),
            lambda actor: self.actor.activity(actor, batch.observation),
            step,
        )

    def actor_loss(
        self, params: Any, critic_params: Any, observation: jax.Array, noise: jax.Array
    ) -> jax.Array:
        """Minus the mean value of noisy actions, for normalised observations (B, O)."""
        action = self.noisy_action(params, observation, noise)
        return losses.actor_loss(self.core.values(critic_params, observation, action))

    def probe(self, state: State, batch: Batch, key: jax.Array) -> dict[str, Probe]:
        """Both networks on one batch, for diagnostics."""
        params, noises = state.params, draws.normal(key, (2, *batch.action.shape))
        next_action = self.next_action(state, batch, noises[1])
        target = self.core.target(state, batch, next_action, 0.0)

        def loss(actor: Any, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
            return self.actor_loss(actor, params["critic"], *(x[None] for x in sample))

        actor = Probe(
            params["actor"],
            topology.masks(state.opt_state["actor"]),
            self.actor.activity(params["actor"], batch.observation),
            (batch.observation, noises[0]),
            loss,
        )
        return {"critic": self.core.critic_probe(state, batch, target), "actor": actor}

    def agent(self) -> Agent:
        """As the trainer takes it."""
        return agent_of(self)._replace(operations=self.operations)


def build_ddpg(
    config: DDPGConfig,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> DDPG[ActorCriticState]:
    """DDPG for one seed. Arguments and errors are those of `build_sac`."""
    actor = networks.make_actor(*vector_sizes(sizes), config.actor.architecture())
    return DDPG(make_actor_critic(config, sizes, total_steps, actor.init, plans), actor)
