"""What MR.Q and MR.SAC share: the model-based encoder, its bursts, and twin critics on its latents.

An algorithm adds how to act, the critic's target and the actor's update
(docs/specs/mst-and-mrq.md §6; Fujimoto et al., 2025).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
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
from mst_jax.agents.parts.augmentation import random_shift
from mst_jax.agents.parts.critic import critic_probe, update_critic
from mst_jax.agents.parts.losses import n_step_return
from mst_jax.agents.parts.pictures import picture_shape
from mst_jax.agents.parts.temperature import TemperatureConfig
from mst_jax.agents.parts.trained import (
    Trained,
    copied,
    make_trained,
    recycled_state,
    replaced,
)
from mst_jax.agents.parts.vectors import vector_size
from mst_jax.replay import Subtrajectory, Transition, View


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
    """Networks and optimizers, and the pure functions over `MRState` that use them.

    Attributes:
        config: settings.
        encoder: of observations and actions.
        critic: of the encoder's latents.
        trained: the three modules, and a temperature where there is one.
        code: actions of the task as the encoder takes them.
        shift: pixels by which the pictures of a batch are moved at most; 0 for other observations.
    """

    config: Config
    encoder: networks.Encoder
    critic: networks.Critic
    trained: Trained
    code: Callable[[jax.Array], jax.Array]
    shift: int

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
        batch = self.transition(view, indices, jax.random.fold_in(batch_key, 0))
        state, priorities, metrics = update(state, batch, update_key, clock.update)
        metrics |= {f"encoder/{name}": value for name, value in state.encoder_metrics.items()}
        return state, Feedback(indices, priorities), metrics

    def transition(self, view: View, indices: jax.Array, key: jax.Array) -> Transition:
        """n-step transitions as the networks take them."""
        batch = view.transition(indices, self.config.n_step)
        keys = jax.random.split(key)
        return batch._replace(
            observation=self.moved(keys[0], batch.observation),
            action=self.code(batch.action),
            next_observation=self.moved(keys[1], batch.next_observation),
        )

    def subtrajectory(self, view: View, indices: jax.Array, key: jax.Array) -> Subtrajectory:
        """Sub-trajectories of the horizon as the networks take them.

        Each observation is moved once: the published program moves one that is a successor and a
        start anew as each, but of its starts only the first one is used.
        """
        batch = view.subtrajectory(indices, self.config.horizon)
        return batch._replace(
            observation=self.moved(key, batch.observation), action=self.code(batch.action)
        )

    def moved(self, key: jax.Array, observation: jax.Array) -> jax.Array:
        """Observations (..., *O); pictures moved, each by a draw of its own."""
        if not self.shift:
            return observation
        pictures = observation.reshape(-1, *observation.shape[-3:])
        return random_shift(key, pictures, self.shift).reshape(observation.shape)

    def returns(self, batch: Transition) -> tuple[jax.Array, jax.Array]:
        """Sums of a batch's discounted rewards (B,), and factors of the values behind them (B,)."""
        config = self.config
        returns, bootstrap = n_step_return(batch.reward, batch.terminated, config.discount)
        if config.published_terminal_rewards:
            returns = losses.published_return(batch.reward, batch.terminated, config.discount)
        return returns, bootstrap

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
            own = jax.random.fold_in(key, index)
            indices = view.sample(own, config.batch_size)
            batch = self.subtrajectory(view, indices, jax.random.fold_in(own, 0))
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
        (loss, terms), grads = topology.value_and_grad(losses.encoder_loss, has_aux=True)(
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
        """Mean value of both heads, a scalar in units of reward, for (*O,) and (*A,)."""
        zs = self.encoder.zs(state.params["encoder"], observation)
        zsa = self.encoder.zsa(state.params["encoder"], zs, self.code(action))
        return jnp.mean(self.critic.apply(state.params["critic"], zsa)) * state.reward_scale

    def encoder_probe(self, state: MRState, view: View, key: jax.Array, size: int) -> Probe:
        """The encoder on a fresh batch of sub-trajectories."""
        config, params = self.config, state.params["encoder"]
        batch = self.subtrajectory(view, view.sample(key, size), jax.random.fold_in(key, 0))
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
    action_size: int,
    total_steps: int,
    actor_init: Callable[[jax.Array], Any],
    plans: Mapping[str, topology.Plan] | None,
    temperature: TemperatureConfig | None = None,
    code: Callable[[jax.Array], jax.Array] = lambda action: action,
) -> MRCore[Config]:
    """The shared part.

    Args:
        config: settings.
        sizes: of the task.
        action_size: numbers that the encoder takes an action as.
        total_steps: agent steps of the whole run.
        actor_init: makes the actor's parameters.
        plans: topology plans to use instead of those that the settings describe.
        temperature: of a maximum-entropy agent.
        code: actions of the task as the encoder takes them.

    Raises:
        ValueError: when a setting is impossible.
    """
    config.validate()
    latents = networks.EncoderSizes(
        config.zs_size, config.za_size, config.zsa_size, config.reward_bins
    )
    architecture, pictures = config.encoder.architecture(), config.pictures
    if sizes.observation.dtype == "uint8":
        body = networks.Convolutions(
            pictures.channels, pictures.depth, pictures.strided, pictures.padding
        )
        shape, shift = picture_shape(sizes), pictures.shift
        encoder = networks.make_picture_latents(shape, action_size, latents, architecture, body)
    else:
        size, shift = vector_size(sizes), 0
        encoder = networks.make_encoder(size, action_size, latents, architecture)
    critic = networks.make_critic(config.zsa_size, config.critic.architecture())
    inits = {"encoder": encoder.init, "critic": critic.init, "actor": actor_init}
    updates = dict.fromkeys(inits, max(1, learn_calls(total_steps, config.learning_starts)))
    clips = {"critic": config.max_grad_norm}
    # The encoder is unrolled. Its parts differ in what targets and other losses use of them;
    # together they have as many passes as the horizon, within 5 % at the published sizes. Critic
    # and actor as in SAC.
    passes = {"encoder": float(config.horizon), "critic": 2.0, "actor": 4 / 3}
    if encoder.positions:  # of pictures: forward for each successor, two of them for the returns
        passes["encoder"] = (config.horizon + 5) / 3
    trained = make_trained(
        config,
        inits,
        updates,
        plans,
        clips,
        temperature=temperature,
        passes=passes,
        positions={"encoder": encoder.positions} if encoder.positions else None,
    )
    return MRCore(config, encoder, critic, trained, code, shift)


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
        indices = view.sample(keys[0], batch_size)
        batch = core.transition(view, indices, jax.random.fold_in(keys[0], 0))
        encoder = core.encoder_probe(state, view, keys[1], batch_size)
        return {"encoder": encoder, **algorithm.probe(state, batch, keys[2])}

    return Agent(
        init=core.init,
        observe=lambda state, observation, first: state,
        act=algorithm.act,
        reset=core.reset,
        recycle=partial(recycled_state, core.trained),
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
