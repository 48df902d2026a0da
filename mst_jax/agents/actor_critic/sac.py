"""SAC (Haarnoja et al., 2018) on SimBa networks, with any training regime on either module.

One update: actor, temperature, critic with the new actor and temperature, target
(docs/specs/network-sparsity.md §2.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from mst_jax import networks, topology
from mst_jax.agents.actor_critic.config import SACConfig
from mst_jax.agents.actor_critic.core import (
    ActorCritic,
    ActorCriticState,
    Batch,
    agent_of,
    make_actor_critic,
)
from mst_jax.agents.base import Agent, Clock, Metrics, Probe, Sizes
from mst_jax.agents.parts import draws, soft_policy, tanh_gaussian
from mst_jax.agents.parts.vectors import vector_sizes
from mst_jax.networks.operations import Tanh


@dataclass(frozen=True)
class SAC:
    """SAC's policy and update on the shared core."""

    core: ActorCritic[SACConfig]
    actor: networks.GaussianActor
    target_entropy: float

    def act(
        self,
        state: ActorCriticState,
        observation: jax.Array,
        key: jax.Array | None,
        clock: Clock | None,
    ) -> jax.Array:
        """A sample of the policy (A,) for an observation (O,); without a key, its mean's tanh."""
        features = self.core.normalise(state, observation)
        return soft_policy.act(self.actor, state.params["actor"], features, key)

    def operations(self, state: ActorCriticState) -> list[networks.Operation]:
        """The policy as it is judged, of a raw observation."""
        actor = self.actor.operations(state.params["actor"])
        return [*self.core.normalise_operations(state), *actor, Tanh()]

    def update(
        self, state: ActorCriticState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[ActorCriticState, Metrics]:
        """Actor, temperature, critic and target, once each, on one batch."""
        trained = self.core.trained
        noises = draws.normal(key, (2, *batch.action.shape))
        state, entropy, actor_metrics = soft_policy.update_actor(
            trained,
            self.actor,
            state,
            batch.observation,
            partial(self.core.values, state.params["critic"]),
            jnp.exp(state.params["temperature"]),
            noises[0],
            step,
        )
        state, temperature_metrics = soft_policy.update_temperature(
            trained, state, entropy, self.target_entropy, step
        )
        next_action, bonus = self.next_action(state, batch, noises[1])
        state, critic_metrics = self.core.update_critic(
            state, batch, next_action, bonus, step, self.core.config.tau
        )
        return state, {**actor_metrics, **temperature_metrics, **critic_metrics}

    def next_action(
        self, state: ActorCriticState, batch: Batch, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The policy's next actions (B, A) and their entropy bonus -alpha log pi (B,)."""
        action, log_probability = tanh_gaussian.sample(
            *self.actor.apply(state.params["actor"], batch.next_observation), noise
        )
        return action, -jnp.exp(state.params["temperature"]) * log_probability

    def probe(self, state: ActorCriticState, batch: Batch, key: jax.Array) -> dict[str, Probe]:
        """Both networks on one batch, for diagnostics."""
        noises = draws.normal(key, (2, *batch.action.shape))
        target = self.core.target(state, batch, *self.next_action(state, batch, noises[1]))
        return {
            "critic": self.core.critic_probe(state, batch, target),
            "actor": soft_policy.actor_probe(
                self.actor,
                state,
                batch.observation,
                partial(self.core.values, state.params["critic"]),
                jnp.exp(state.params["temperature"]),
                noises[0],
            ),
        }

    def agent(self) -> Agent:
        """As the trainer takes it."""
        return agent_of(self)._replace(operations=self.operations)


def build_sac(
    config: SACConfig,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> SAC:
    """SAC for one seed.

    Args:
        config: settings; read, never changed.
        sizes: of the task.
        total_steps: agent steps of the whole run, from which topology schedules take their end.
        plans: each module's topology plan; made from `config` by default (see `sweep`).

    Raises:
        ValueError: when a setting is impossible.
    """
    actor = networks.make_gaussian_actor(*vector_sizes(sizes), config.actor.architecture())
    core = make_actor_critic(config, sizes, total_steps, actor.init, plans, config.temperature)
    return SAC(core, actor, config.temperature.target_entropy(vector_sizes(sizes)[1]))
