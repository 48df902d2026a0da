"""TD3 (Fujimoto et al., 2018) on SimBa networks, with any training regime on either module.

Three changes to DDPG: the smaller of two critics counts in the target; the target's action is the
target actor's, smoothed by clipped noise; actor and targets follow every `policy_delay`-th update
of the critics. Exploration noise is on actions only, not in the actor's loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mst_jax import networks, topology
from mst_jax.agents.actor_critic.config import DDPGConfig
from mst_jax.agents.actor_critic.core import (
    ActorCritic,
    ActorCriticState,
    Batch,
    make_actor_critic,
)
from mst_jax.agents.actor_critic.ddpg import DDPG
from mst_jax.agents.base import Agent, Metrics, Numbers, Sizes
from mst_jax.agents.parts import draws, losses
from mst_jax.agents.parts.modules import not_negative, require
from mst_jax.agents.parts.trained import copied, delayed, replaced
from mst_jax.agents.parts.vectors import vector_sizes


@dataclass
class TD3Config(DDPGConfig):
    """Settings of TD3 (Fujimoto et al., 2018, table 3 and section 6.1).

    Attributes:
        exploration_noise: standard deviation of the Gaussian noise on actions when acting.
        twin: two critics, of which the smaller value counts; that is TD3's own.
        policy_delay: critic updates from one update of the actor and the targets to the next.
        target_noise: standard deviation of the noise on the target actor's actions.
        target_noise_clip: its clip.
    """

    twin: bool = True
    policy_delay: int = 2
    target_noise: float = 0.2
    target_noise_clip: float = 0.5

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        super().validate()
        require(self.policy_delay >= 1, f"policy_delay={self.policy_delay} must be at least 1")
        not_negative("target_noise", self.target_noise)
        not_negative("target_noise_clip", self.target_noise_clip)


@struct.dataclass
class TD3State(ActorCriticState):
    """What TD3 learns besides, for one seed.

    Attributes:
        target_actor: Polyak average of the actor, with the actor's topology.
    """

    target_actor: Any


@dataclass(frozen=True)
class TD3(DDPG[TD3State]):
    """TD3's targets and its delayed actor; acting and diagnostics are DDPG's."""

    core: ActorCritic[TD3Config]  # ty: ignore[incompatible-attribute-override] - never assigned

    def init(self, key: jax.Array, numbers: Numbers | None = None) -> TD3State:
        """Random parameters, masks drawn and applied; targets equal the online networks."""
        state = self.core.init(key, numbers)
        return TD3State(**vars(state), target_actor=copied(state.params["actor"]))

    def reset(self, state: TD3State, key: jax.Array) -> TD3State:
        """As SAC's and DDPG's; the target actor is renewed too."""
        state = self.core.reset(state, key)
        return replace(state, target_actor=copied(state.params["actor"]))

    def update(
        self, state: TD3State, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[TD3State, Metrics]:
        """Both critics; then, at every `policy_delay`-th update, the actor and the targets.

        The actor's own update number, which its schedules go by, is `step // policy_delay`.
        """
        config, noise = self.core.config, draws.normal(key, batch.action.shape)
        due = (step + 1) % config.policy_delay == 0
        next_action = self.next_action(state, batch, noise)
        # A Polyak step of 0 leaves the target as it is, in the present topology of the critics.
        tau = jnp.where(due, config.tau, 0.0)
        state, critic_metrics = self.core.update_critic(state, batch, next_action, 0.0, step, tau)

        def update() -> tuple[tuple[Any, Any, Any], Metrics]:
            new, metrics = self.update_actor(state, batch, noise, step // config.policy_delay)
            actor, opt_state = new.params["actor"], new.opt_state["actor"]
            masks = topology.masks(opt_state)
            target = topology.update_target(state.target_actor, actor, masks, config.tau)
            return (actor, opt_state, target), metrics

        unchanged = (state.params["actor"], state.opt_state["actor"], state.target_actor)
        (actor, opt_state, target), actor_metrics = delayed(due, update, unchanged)
        state = replace(replaced(state, "actor", actor, opt_state), target_actor=target)
        return state, {**critic_metrics, **actor_metrics}

    def next_action(self, state: TD3State, batch: Batch, noise: jax.Array) -> jax.Array:
        """The target actor's actions (B, A) with scaled and clipped noise (B, A)."""
        limit = self.core.config.target_noise_clip
        action = jnp.tanh(self.actor.apply(state.target_actor, batch.next_observation))
        smoothing = jnp.clip(self.core.config.target_noise * noise, -limit, limit)
        return jnp.clip(action + smoothing, -1.0, 1.0)

    def actor_loss(
        self, params: Any, critic_params: Any, observation: jax.Array, noise: jax.Array
    ) -> jax.Array:
        """Minus the first critic's mean value of the actions as they are; no noise is added."""
        del noise
        action = jnp.tanh(self.actor.apply(params, observation))
        return losses.actor_loss(self.core.values(critic_params, observation, action)[..., :1])

    def agent(self) -> Agent:
        """As the trainer takes it."""
        return super().agent()._replace(init=self.init, reset=self.reset)


def build_td3(
    config: TD3Config,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> TD3:
    """TD3 for one seed. Arguments and errors are those of `build_sac`."""
    actor = networks.make_actor(*vector_sizes(sizes), config.actor.architecture())
    core = make_actor_critic(
        config, sizes, total_steps, actor.init, plans, actor_delay=config.policy_delay
    )
    return TD3(core, actor)
