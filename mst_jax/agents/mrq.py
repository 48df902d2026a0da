"""MR.Q (Fujimoto et al., 2025) with any training regime on any module (specs/mst-and-mrq.md §6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mst_jax import networks, topology
from mst_jax.agents import mrq_losses as losses
from mst_jax.agents.base import Agent, Clock, Feedback, Metrics, Numbers
from mst_jax.agents.modules import make_optimizer, plan_module, shapes_of
from mst_jax.agents.mrq_config import MODULES, MRQConfig


@struct.dataclass
class MRQState:
    """Everything MR.Q learns, for one seed.

    Attributes:
        params: {encoder, critic, actor}.
        target_params: their copies of the last target update.
        opt_state: {encoder, critic, actor} optimizer states, each with its module's topology.
        reward_scale: mean |reward| of the buffer at the last target update (§6.6).
        target_reward_scale: the one before it, the unit of the target critic.
        encoder_metrics: mean losses of the last encoder burst.
    """

    params: dict[str, Any]
    target_params: dict[str, Any]
    opt_state: dict[str, Any]
    reward_scale: jax.Array
    target_reward_scale: jax.Array
    encoder_metrics: Metrics


@dataclass(frozen=True)
class MRQ:
    """MR.Q's networks and optimizers, and the pure functions over `MRQState` that use them."""

    config: MRQConfig
    encoder: networks.Encoder
    critic: networks.Critic
    actor: networks.Actor
    optimizers: dict[str, optax.GradientTransformationExtraArgs]

    def init(self, key: jax.Array, numbers: Numbers | None = None) -> MRQState:
        """Random parameters, masks drawn and applied; targets equal the online networks."""
        keys = dict(zip(MODULES, jax.random.split(key, len(MODULES)), strict=True))
        params, opt_state = {}, {}
        for name in MODULES:
            network_key, mask_key = jax.random.split(keys[name])
            dense_params = getattr(self, name).init(network_key)
            tables = None if numbers is None else numbers.tables[name]
            params[name], opt_state[name] = topology.init(
                self.optimizers[name], dense_params, mask_key, tables
            )
            if numbers is not None:
                rate = numbers.learning_rates[name]
                opt_state[name] = optax.tree.set(opt_state[name], learning_rate=rate)
        return MRQState(
            params=params,
            # A copy: a donated state must not hold one buffer twice.
            target_params=jax.tree.map(jnp.copy, params),
            opt_state=opt_state,
            reward_scale=jnp.ones(()),
            target_reward_scale=jnp.ones(()),
            encoder_metrics={n: jnp.zeros(()) for n in ("loss", "dynamics", "reward", "terminal")},
        )

    def act(self, state: MRQState, observation: jax.Array, key: jax.Array | None) -> jax.Array:
        """Action (A,) for an observation (O,), with Gaussian noise when there is a key (§6.8)."""
        zs = self.encoder.zs(state.params["encoder"], observation)
        action = jnp.tanh(self.actor.apply(state.params["actor"], zs))
        if key is None:
            return action
        noise = self.config.exploration_noise * jax.random.normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0)

    def learn(
        self, state: MRQState, view: Any, key: jax.Array, clock: Clock
    ) -> tuple[MRQState, Feedback, Metrics]:
        """One update; every `target_period` updates an encoder burst comes first (§6.7)."""
        burst_key, batch_key, noise_key = jax.random.split(key, 3)
        # The conditional returns only what a burst changes: the rest need not be copied each step.
        changed = jax.lax.cond(
            clock.update % self.config.target_period == 0,
            lambda: self.refresh(state, view, burst_key, clock),
            lambda: (
                {name: getattr(state, name) for name in _CHANGED_BY_BURST}
                | {"encoder": (state.params["encoder"], state.opt_state["encoder"])}
            ),
        )
        encoder_params, encoder_opt_state = changed.pop("encoder")
        state = state.replace(
            params={**state.params, "encoder": encoder_params},
            opt_state={**state.opt_state, "encoder": encoder_opt_state},
            **changed,
        )
        indices = view.sample(batch_key, self.config.batch_size)
        batch = view.transition(indices, self.config.n_step)
        noise = self.config.target_noise * jax.random.normal(noise_key, batch.action.shape)
        state, priorities, metrics = self.update_critic_and_actor(state, batch, noise, clock.update)
        return state, Feedback(indices, priorities), metrics

    def refresh(self, state: MRQState, view: Any, key: jax.Array, clock: Clock) -> dict[str, Any]:
        """Copies targets, renews the reward scale, trains the encoder for one period (§6.7)."""
        config = self.config
        target_params = state.params
        weights = losses.EncoderLossWeights(
            config.dynamics_weight,
            config.reward_weight,
            config.terminal_weight * view.terminal_seen,
        )

        def step(carry: tuple, index: jax.Array) -> tuple[tuple, Metrics]:
            params, opt_state = carry
            indices = view.sample(jax.random.fold_in(key, index), config.batch_size)
            batch = view.subtrajectory(indices, config.horizon)
            return self.update_encoder(
                params, opt_state, target_params["encoder"], batch, weights, clock.update + index
            )

        encoder, metrics = jax.lax.scan(
            step,
            (state.params["encoder"], state.opt_state["encoder"]),
            jnp.arange(config.target_period),
        )
        return {
            "encoder": encoder,
            "target_params": target_params,
            "reward_scale": jnp.maximum(view.mean_absolute_reward(), 1e-8),
            "target_reward_scale": state.reward_scale,
            "encoder_metrics": jax.tree.map(jnp.mean, metrics),
        }

    def update_encoder(
        self,
        params: Any,
        opt_state: Any,
        target_params: Any,
        batch: Any,
        weights: losses.EncoderLossWeights,
        step: jax.Array,
    ) -> tuple[tuple[Any, Any], Metrics]:
        """One step on a batch of sub-trajectories; targets are the copy taken before the burst."""
        bins = losses.symexp_bins(self.config.reward_bins, self.config.reward_limit)
        (loss, terms), grads = jax.value_and_grad(losses.encoder_loss, has_aux=True)(
            params,
            self.encoder,
            batch.observation[:, 0],
            batch.action,
            batch.reward,
            batch.terminated,
            self.encoder.zs(target_params, batch.observation[:, 1:]),
            bins,
            weights,
        )
        params, opt_state = self.apply("encoder", grads, opt_state, params, step)
        return (params, opt_state), {"loss": loss, **terms}

    def update_critic_and_actor(
        self, state: MRQState, batch: Any, noise: jax.Array, step: jax.Array
    ) -> tuple[MRQState, jax.Array, Metrics]:
        """One critic step, then one actor step with the new critic, on one batch (§6.4, §6.5).

        `noise` (B, A) is the target policy's smoothing noise before its clip. Returns the new
        state, the priorities (B,) of the batch and metrics.
        """
        config, params = self.config, state.params
        target = self.target(state, batch, noise)
        zs = self.encoder.zs(params["encoder"], batch.observation)
        zsa = self.encoder.zsa(params["encoder"], zs, batch.action)

        (critic_loss, values), grads = jax.value_and_grad(losses.critic_loss, has_aux=True)(
            params["critic"], self.critic, zsa, target
        )
        critic, critic_opt_state = self.apply(
            "critic", grads, state.opt_state["critic"], params["critic"], step
        )
        actor_loss, actor_grads = jax.value_and_grad(losses.actor_loss)(
            params["actor"],
            self.actor,
            self.critic,
            self.encoder,
            critic,
            params["encoder"],
            zs,
            config.pre_activation_weight,
        )
        actor, actor_opt_state = self.apply(
            "actor", actor_grads, state.opt_state["actor"], params["actor"], step
        )
        state = state.replace(
            params={**params, "critic": critic, "actor": actor},
            opt_state={**state.opt_state, "critic": critic_opt_state, "actor": actor_opt_state},
        )
        priorities = losses.lap_priority(
            values, target, config.min_priority, config.priority_exponent
        )
        metrics = {
            "critic/loss": critic_loss,
            "critic/value": jnp.mean(values) * state.reward_scale,
            "critic/gradient_norm": optax.tree.norm(grads),
            "actor/loss": actor_loss,
            "actor/gradient_norm": optax.tree.norm(actor_grads),
            "reward_scale": state.reward_scale,
            **{f"encoder/{name}": value for name, value in state.encoder_metrics.items()},
        }
        return state, priorities, metrics

    def target(self, state: MRQState, batch: Any, noise: jax.Array) -> jax.Array:
        """The critic's n-step target (B,) from the target networks."""
        targets = state.target_params
        next_zs = self.encoder.zs(targets["encoder"], batch.next_observation)
        next_action = losses.target_action(
            targets["actor"], self.actor, next_zs, noise, self.config.target_noise_clip
        )
        next_zsa = self.encoder.zsa(targets["encoder"], next_zs, next_action)
        returns, bootstrap = losses.n_step_return(
            batch.reward, batch.terminated, self.config.discount
        )
        return losses.critic_target(
            returns,
            bootstrap,
            self.critic.apply(targets["critic"], next_zsa),
            state.reward_scale,
            state.target_reward_scale,
        )

    def apply(
        self, name: str, grads: Any, opt_state: Any, params: Any, step: jax.Array
    ) -> tuple[Any, Any]:
        """One optimizer step of one module; its topology is rewired when `step` says so."""
        updates, opt_state = self.optimizers[name].update(grads, opt_state, params, step=step)
        return optax.apply_updates(params, updates), opt_state


_CHANGED_BY_BURST = ("target_params", "reward_scale", "target_reward_scale", "encoder_metrics")


def build_mrq(
    config: MRQConfig,
    observation_size: int,
    action_size: int,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> tuple[MRQ, Mapping[str, topology.Plan]]:
    """MR.Q's functions and each module's topology plan; see `make_mrq` for the arguments."""
    config.validate()
    sizes = networks.EncoderSizes(
        config.zs_size, config.za_size, config.zsa_size, config.reward_bins
    )
    modules = {
        "encoder": networks.make_encoder(
            observation_size, action_size, sizes, config.encoder.architecture()
        ),
        "critic": networks.make_critic(config.zsa_size, config.critic.architecture()),
        "actor": networks.make_actor(config.zs_size, action_size, config.actor.architecture()),
    }
    total_updates = max(1, total_steps - config.learning_starts)
    if plans is None:
        plans = {
            name: plan_module(name, getattr(config, name), shapes_of(module.init), total_updates)
            for name, module in modules.items()
        }
    clips = {"critic": config.max_grad_norm}
    optimizers = {
        name: make_optimizer(getattr(config, name), plans[name], clips.get(name))
        for name in MODULES
    }
    return MRQ(config, **modules, optimizers=optimizers), plans


def make_mrq(
    config: MRQConfig,
    observation_size: int,
    action_size: int,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> Agent:
    """Builds MR.Q for one seed.

    Args:
        config: settings; read, never changed.
        observation_size: O.
        action_size: A.
        total_steps: agent steps of the whole run, from which topology schedules take their end.
        plans: each module's topology plan; made from `config` by default (see `sweep`).

    Returns:
        The agent as pure functions.

    Raises:
        ValueError: when a setting is impossible.
    """
    mrq, plans = build_mrq(config, observation_size, action_size, total_steps, plans)
    return Agent(
        init=mrq.init,
        observe=lambda state, observation: state,
        act=mrq.act,
        learn=mrq.learn,
        parameters=lambda state: state.params,
        acting=("params",),
        masks=_masks,
        plans=plans,
        learning_starts=config.learning_starts,
        buffer_size=config.buffer_size,
        span=config.span,
    )


def _masks(state: MRQState) -> dict[str, Any]:
    return {name: topology.masks(state.opt_state[name]) for name in MODULES}
