"""What MR.Q and MR.SAC share: the model-based encoder, its bursts, and twin critics on its latents.

An algorithm adds how to act, the critic's target and the actor's update
(docs/specs/mst-and-mrq.md §6; Fujimoto et al., 2025).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from mst_jax import networks, topology
from mst_jax.agents.base import (
    Act,
    Agent,
    Clock,
    Experience,
    Feedback,
    Memory,
    Metrics,
    Numbers,
    Probe,
    Sizes,
    learn_calls,
)
from mst_jax.agents.mr import losses
from mst_jax.agents.mr.config import MRConfig
from mst_jax.agents.parts.critic import critic_probe, update_critic
from mst_jax.agents.parts.temperature import TemperatureConfig
from mst_jax.agents.parts.trained import Trained, copied, make_trained, replaced
from mst_jax.agents.parts.vectors import vector_sizes
from mst_jax.replay import View


@struct.dataclass
class MRState:
    """Everything MR.Q or MR.SAC learns, for one seed.

    Attributes:
        params: {encoder, critic, actor} and, for MR.SAC, temperature.
        target_params: copies of the networks, of the last target update.
        opt_state: optimizer states by the names of `params`, each with its module's topology.
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


Update = Callable[
    [MRState, Any, jax.Array, jax.Array], tuple[MRState, jax.Array, Metrics]
]  # (state, batch, key, number of the update) -> state, priorities (B,), metrics


Config = TypeVar("Config", bound=MRConfig)


@dataclass(frozen=True)
class MRCore(Generic[Config]):
    """Networks and optimizers, and the pure functions over `MRState` that use them."""

    config: Config
    encoder: networks.Encoder
    critic: networks.Critic
    trained: Trained

    def init(self, key: jax.Array, numbers: Numbers | None = None) -> MRState:
        """Random parameters, masks drawn and applied; targets equal the online networks."""
        params, opt_state = self.trained.init(key, numbers)
        return MRState(
            params=params,
            target_params=copied(self.networks(params)),
            opt_state=opt_state,
            reward_scale=jnp.ones(()),
            target_reward_scale=jnp.ones(()),
            encoder_metrics={n: jnp.zeros(()) for n in ("loss", "dynamics", "reward", "terminal")},
        )

    def networks(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters that have a target copy: all but a temperature."""
        return {name: params[name] for name in self.trained.modules}

    def reset(self, state: MRState, key: jax.Array) -> MRState:
        """Fresh networks, targets and optimizers; masks and reward scales stay."""
        params, opt_state = self.trained.reset(key, state.opt_state)
        return replace(
            state, params=params, target_params=copied(self.networks(params)), opt_state=opt_state
        )

    def learn(
        self, update: Update, state: MRState, view: View, key: jax.Array, clock: Clock
    ) -> tuple[MRState, Feedback, Metrics]:
        """One update; every `target_period` updates an encoder burst comes first (§6.7)."""
        burst_key, batch_key, update_key = jax.random.split(key, 3)
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
        state = replace(replaced(state, "encoder", encoder_params, encoder_opt_state), **changed)
        indices = view.sample(batch_key, self.config.batch_size)
        batch = view.transition(indices, self.config.n_step)
        state, priorities, metrics = update(state, batch, update_key, clock.update)
        metrics |= {f"encoder/{name}": value for name, value in state.encoder_metrics.items()}
        return state, Feedback(indices, priorities), metrics

    def refresh(self, state: MRState, view: View, key: jax.Array, clock: Clock) -> dict[str, Any]:
        """Copies targets, renews the reward scale, trains the encoder for one period (§6.7).

        The encoder takes as many steps as the other modules and runs ahead of them by up to one
        period, so in a run that is no multiple of it the last burst goes a little beyond what its
        plan counts.
        """
        config = self.config
        target_params = self.networks(state.params)
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
        params, opt_state = self.trained.step(
            "encoder",
            grads,
            params,
            opt_state,
            step,
            lambda: self.encoder.activity(params, batch.observation[:, 0], batch.action[:, 0]),
        )
        return (params, opt_state), {"loss": loss, **terms}

    def value(self, state: MRState, observation: jax.Array, action: jax.Array) -> jax.Array:
        """Mean value of both heads, a scalar in units of reward, for (O,) and (A,)."""
        zs = self.encoder.zs(state.params["encoder"], observation)
        zsa = self.encoder.zsa(state.params["encoder"], zs, action)
        return jnp.mean(self.critic.apply(state.params["critic"], zsa)) * state.reward_scale

    def encoder_probe(self, state: MRState, view: View, key: jax.Array, size: int) -> Probe:
        """The encoder on a fresh batch of sub-trajectories."""
        config, params = self.config, state.params["encoder"]
        batch = view.subtrajectory(view.sample(key, size), config.horizon)
        following = self.encoder.zs(state.target_params["encoder"], batch.observation[:, 1:])
        first = batch.observation[:, 0]
        bins = losses.symexp_bins(config.reward_bins, config.reward_limit)
        weights = losses.EncoderLossWeights(
            config.dynamics_weight,
            config.reward_weight,
            config.terminal_weight * view.terminal_seen,
        )

        def loss(params: Any, sample: tuple[jax.Array, ...]) -> jax.Array:
            own = (x[None] for x in sample)
            return losses.encoder_loss(params, self.encoder, *own, bins, weights)[0]

        samples = (first, batch.action, batch.reward, batch.terminated, following)
        activity = self.encoder.activity(params, first, batch.action[:, 0])
        masks = topology.masks(state.opt_state["encoder"])
        return Probe(params, masks, activity, samples, loss)

    def critic_probe(self, state: MRState, batch: Any, target: jax.Array) -> Probe:
        """The critic on a batch, towards targets (B,)."""
        zsa = self.embedded(state, batch)
        return critic_probe(self.critic, state, zsa, target, losses.critic_loss)

    def embedded(self, state: MRState, batch: Any) -> jax.Array:
        """The critic's inputs (B, zsa): the encoder's, of the batch's observations and actions."""
        params = state.params["encoder"]
        return self.encoder.zsa(params, self.encoder.zs(params, batch.observation), batch.action)

    def target_values(self, state: MRState, next_zs: jax.Array, action: jax.Array) -> jax.Array:
        """Values (B, 2) of the target networks, in units of the target reward scale."""
        targets = state.target_params
        next_zsa = self.encoder.zsa(targets["encoder"], next_zs, action)
        return self.critic.apply(targets["critic"], next_zsa)

    def update_critic(
        self, state: MRState, batch: Any, target: jax.Array, step: jax.Array
    ) -> tuple[MRState, jax.Array, Metrics]:
        """One critic step towards targets (B,); also returns the priorities (B,) (§6.4, §6.9)."""
        config, zsa = self.config, self.embedded(state, batch)
        state, values, metrics = update_critic(
            self.trained, self.critic, state, zsa, target, losses.critic_loss, step
        )
        priorities = losses.lap_priority(
            values, target, config.min_priority, config.priority_exponent
        )
        metrics["critic/value"] *= state.reward_scale
        return state, priorities, {**metrics, "reward_scale": state.reward_scale}


_CHANGED_BY_BURST = ("target_params", "reward_scale", "target_reward_scale", "encoder_metrics")


def make_core(
    config: Config,
    sizes: Sizes,
    total_steps: int,
    actor_init: Callable[[jax.Array], Any],
    plans: Mapping[str, topology.Plan] | None,
    temperature: TemperatureConfig | None = None,
) -> MRCore[Config]:
    """The shared part; `actor_init` makes the actor's parameters.

    Raises:
        ValueError: when a setting is impossible.
    """
    config.validate()
    latents = networks.EncoderSizes(
        config.zs_size, config.za_size, config.zsa_size, config.reward_bins
    )
    encoder = networks.make_encoder(*vector_sizes(sizes), latents, config.encoder.architecture())
    critic = networks.make_critic(config.zsa_size, config.critic.architecture())
    inits = {"encoder": encoder.init, "critic": critic.init, "actor": actor_init}
    updates = dict.fromkeys(inits, max(1, learn_calls(total_steps, config.learning_starts)))
    clips = {"critic": config.max_grad_norm}
    # The encoder is unrolled. Its parts differ in what targets and other losses use of them;
    # together they have as many passes as the horizon, within 5 % at the published sizes. Critic
    # and actor as in SAC.
    passes = {"encoder": float(config.horizon), "critic": 2.0, "actor": 4 / 3}
    trained = make_trained(
        config, inits, updates, plans, clips, temperature=temperature, passes=passes
    )
    return MRCore(config, encoder, critic, trained)


class Algorithm(Protocol):
    """How to act and one update of critic and actor, on the shared core."""

    @property
    def core(self) -> MRCore:
        """Networks and optimizers."""

    @property
    def act(self) -> Act:
        """See `Agent`."""

    @property
    def update(self) -> Update:
        """One update on one batch."""

    @property
    def probe(self) -> Callable[[MRState, Any, jax.Array], dict[str, Probe]]:
        """(state, batch, key) -> {critic, actor: Probe}."""


def agent_of(algorithm: Algorithm) -> Agent:
    """The agent of an algorithm; the encoder's probe is added to those of critic and actor."""
    core = algorithm.core

    def learn(
        state: MRState, experience: Experience, key: jax.Array, clock: Clock
    ) -> tuple[MRState, Feedback, Metrics]:
        return core.learn(algorithm.update, state, experience.replay, key, clock)

    def probes(
        state: MRState, experience: Experience, key: jax.Array, batch_size: int
    ) -> dict[str, Probe]:
        keys, view = jax.random.split(key, 3), experience.replay
        batch = view.transition(view.sample(keys[0], batch_size), core.config.n_step)
        encoder = core.encoder_probe(state, view, keys[1], batch_size)
        return {"encoder": encoder, **algorithm.probe(state, batch, keys[2])}

    return Agent(
        init=core.init,
        observe=lambda state, observation, first: state,
        act=algorithm.act,
        reset=core.reset,
        learn=learn,
        value=core.value,
        probe=probes,
        parameters=lambda state: core.networks(state.params),
        acting=("params/encoder/zs", "params/actor"),
        masks=lambda state: core.trained.masks(state.opt_state),
        modules=core.trained.modules,
        learning_starts=core.config.learning_starts,
        memory=Memory(core.config.buffer_size, core.config.span, prioritised=True),
        discount=core.config.discount,
    )
