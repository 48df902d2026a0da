"""DER (van Hasselt et al., 2019): Rainbow for few steps, with any regime (docs/specs/der.md).

One update: encoder and critic on one gradient, towards a target of copies of both. Each of
Rainbow's parts is a setting; without all of them it is DQN (Mnih et al., 2015). Keys of all that is
random in an update are told apart by purpose.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mst_jax import networks, topology
from mst_jax.agents.base import (
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
from mst_jax.agents.parts import draws
from mst_jax.agents.parts.losses import n_step_return
from mst_jax.agents.parts.modules import check_episodes
from mst_jax.agents.parts.pictures import picture_shape
from mst_jax.agents.parts.trained import (
    Trained,
    active_norm,
    copied,
    make_trained,
    recycled_state,
    replaced,
)
from mst_jax.agents.rainbow import losses
from mst_jax.agents.rainbow.config import DERConfig
from mst_jax.envs.spaces import Discrete
from mst_jax.replay import View

Params = dict[str, Any]  # {encoder, critic}
Noises = Mapping[str, networks.Noise]  # of each noisy layer


class Draw(IntEnum):
    """What an update's key is folded with."""

    SAMPLE = 0
    NOISE = 1
    NEXT_NOISE = 2


@struct.dataclass
class DERState:
    """Everything DER learns, for one seed.

    Attributes:
        params: {encoder, critic}.
        target_params: their copies of the last target update, topology included.
        opt_state: optimizer states by the same names, each with its module's topology.
    """

    params: Params
    target_params: Params
    opt_state: dict[str, Any]


@struct.dataclass
class Batch:
    """What one update sees, all drawn.

    Attributes:
        observation: (B, H, W, C) uint8.
        action: int32 (B,).
        returns: (B,) rewards of n steps, discounted, until a termination.
        bootstrap: (B,) factor of the value that follows; 0 after a termination.
        next_observation: (B, H, W, C) uint8, n steps on.
        weight: (B,), of each sample's loss.
        noise: of the loss; None without noisy layers.
        next_noise: of both networks on the next observations.
    """

    observation: jax.Array
    action: jax.Array
    returns: jax.Array
    bootstrap: jax.Array
    next_observation: jax.Array
    weight: jax.Array
    noise: Noises | None
    next_noise: Noises | None


@dataclass(frozen=True)
class DER:
    """Networks and optimizers, and the pure functions over `DERState` that use them.

    N is the number of atoms, or 1 where values are not distributions.
    """

    config: DERConfig
    actions: Discrete
    encoder: networks.PixelEncoder
    critic: networks.ActionValues
    trained: Trained

    def init(self, key: jax.Array, numbers: Numbers | None = None) -> DERState:
        """Random parameters, masks drawn and applied; targets equal the online networks."""
        params, opt_state = self.trained.init(key, numbers)
        return DERState(params, copied(params), opt_state)

    def reset(self, state: DERState, key: jax.Array) -> DERState:
        """Fresh networks, targets and optimizers; masks stay."""
        params, opt_state = self.trained.reset(key, state.opt_state)
        return DERState(params, copied(params), opt_state)

    @property
    def support(self) -> jax.Array:
        """Returns of the atoms (N,)."""
        return jnp.linspace(self.config.v_min, self.config.v_max, self.config.atoms)

    def noise(self, key: jax.Array) -> Noises | None:
        """One draw for every noisy layer, independent of the others'; None if there are none."""
        sizes = self.critic.noisy
        if not sizes:
            return None
        drawn = {}
        for own, (name, (inputs, outputs)) in zip(
            jax.random.split(key, len(sizes)), sizes.items(), strict=True
        ):
            numbers = draws.normal(own, (inputs + outputs,))
            drawn[name] = networks.Noise(numbers[:inputs], numbers[inputs:])
        return drawn

    def logits(self, params: Params, observation: jax.Array, noise: Noises | None) -> jax.Array:
        """What the critic says of every action (..., A, N) for pictures (..., H, W, C)."""
        features = self.encoder.apply(params["encoder"], observation)
        return self.critic.apply(params["critic"], features, noise)

    def values(self, logits: jax.Array) -> jax.Array:
        """Expected returns (...) of logits (..., N)."""
        if not self.config.distributional:
            return logits[..., 0]
        return jnp.sum(jax.nn.softmax(logits) * self.support, axis=-1)

    def greedy(self, state: DERState, observation: jax.Array, noise: Noises | None) -> jax.Array:
        """The best action, an int32 scalar, for a picture (H, W, C)."""
        values = self.values(self.logits(state.params, observation, noise))
        return jnp.argmax(values, axis=-1).astype(jnp.int32)

    def act(
        self,
        state: DERState,
        observation: jax.Array,
        key: jax.Array | None,
        clock: Clock | None,
    ) -> jax.Array:
        """The best action of a draw of noise, or the best but for a random one now and then."""
        if key is None or clock is None:
            return self.greedy(state, observation, None)
        if self.config.noisy:
            return self.greedy(state, observation, self.noise(key))
        return self.mostly_greedy(state, observation, key, self.epsilon(clock.step))

    def evaluate(self, state: DERState, observation: jax.Array, key: jax.Array) -> jax.Array:
        """The best action without noise, but for a random one now and then."""
        return self.mostly_greedy(state, observation, key, self.config.evaluation_epsilon)

    def mostly_greedy(
        self,
        state: DERState,
        observation: jax.Array,
        key: jax.Array,
        epsilon: jax.Array | float,
    ) -> jax.Array:
        """A uniform action with probability `epsilon`, else the best without noise."""
        when, which = jax.random.split(key)
        best = self.greedy(state, observation, None)
        return jnp.where(jax.random.uniform(when) < epsilon, self.actions.sample(which), best)

    def epsilon(self, step: jax.Array) -> jax.Array:
        """Share of random actions in training without noise, at an agent step, a scalar."""
        config = self.config
        share = jnp.clip((step - config.learning_starts) / config.epsilon_steps, 0.0, 1.0)
        return (1.0 - share) * config.epsilon_start + share * config.epsilon_end

    def learn(
        self, state: DERState, experience: Experience, key: jax.Array, clock: Clock
    ) -> tuple[DERState, Feedback | None, Metrics]:
        """One update on a batch drawn by priority; every `target_period` steps new targets."""
        view = experience.replay
        indices = view.sample(jax.random.fold_in(key, Draw.SAMPLE), self.config.batch_size)
        batch = self.batch(view, indices, key)
        state, priorities, metrics = self.update(state, batch, clock.update)
        if not self.config.noisy:
            metrics["epsilon"] = self.epsilon(clock.step)
        feedback = Feedback(indices, priorities) if self.config.prioritised else None
        return self.refreshed(state, clock), feedback, metrics

    def batch(self, view: View, indices: jax.Array, key: jax.Array) -> Batch:
        """The n-step transitions from these starts (B,), and the noise of an update."""
        config = self.config
        raw = view.transition(indices, config.n_step)
        reward = jnp.clip(raw.reward, -1.0, 1.0) if config.clip_rewards else raw.reward
        returns, bootstrap = n_step_return(reward, raw.terminated, config.discount)
        weight = jnp.ones_like(returns)
        if config.prioritised:
            weight = losses.importance_weights(view.probability(indices))
        return Batch(
            raw.observation,
            raw.action,
            returns,
            bootstrap,
            raw.next_observation,
            weight,
            self.noise(jax.random.fold_in(key, Draw.NOISE)),
            self.noise(jax.random.fold_in(key, Draw.NEXT_NOISE)),
        )

    def target(self, state: DERState, batch: Batch) -> jax.Array:
        """What is predicted (B, N): a distribution over the atoms, or the return itself."""
        following = self.logits(state.target_params, batch.next_observation, batch.next_noise)
        chooser = following
        if self.config.double:
            chooser = self.logits(state.params, batch.next_observation, batch.next_noise)
        following = _of_action(following, jnp.argmax(self.values(chooser), axis=-1))
        returns, bootstrap = batch.returns[:, None], batch.bootstrap[:, None]
        if not self.config.distributional:
            return returns + bootstrap * following
        places = returns + bootstrap * self.support
        return losses.projected(places, jax.nn.softmax(following), self.support)

    def sample_losses(self, logits: jax.Array, target: jax.Array) -> jax.Array:
        """Loss of each sample (B,) for logits of its action and its target, both (B, N)."""
        if self.config.distributional:
            return losses.cross_entropy(logits, target)
        return optax.huber_loss(logits, target)[:, 0]

    def loss(
        self, params: Params, batch: Batch, target: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The weighted loss; also the features (B, F) and the logits of the actions (B, N)."""
        features = self.encoder.apply(params["encoder"], batch.observation)
        logits = self.critic.apply(params["critic"], features, batch.noise)
        logits = _of_action(logits, batch.action)
        own = self.sample_losses(logits, target)
        return jnp.mean(batch.weight * own), (features, logits)

    def update(
        self, state: DERState, batch: Batch, step: jax.Array
    ) -> tuple[DERState, jax.Array, Metrics]:
        """One step of encoder and critic on one gradient; also the priorities (B,)."""
        old, target = state.params, self.target(state, batch)
        (loss, (features, logits)), grads = topology.value_and_grad(self.loss, has_aux=True)(
            old, batch, target
        )
        activities = {
            "encoder": partial(self.encoder.activity, old["encoder"], batch.observation),
            "critic": partial(self.critic.activity, old["critic"], features, batch.noise),
        }

        def loss_of(name: str, params: Any) -> jax.Array:
            return self.loss({**old, name: params}, batch, target)[0]

        values = self.values(logits)
        metrics = {"critic/loss": loss, "critic/value": jnp.mean(values)}
        for name, activity in activities.items():
            params, opt_state = self.trained.step(
                name,
                grads[name],
                old[name],
                state.opt_state[name],
                step,
                activity,
                partial(loss_of, name),
            )
            metrics[f"{name}/gradient_norm"] = active_norm(grads[name], opt_state)
            state = replaced(state, name, params, opt_state)
        return state, self.priorities(logits, target), metrics

    def priorities(self, logits: jax.Array, target: jax.Array) -> jax.Array:
        """New priorities (B,), of logits and targets as in `sample_losses`."""
        if self.config.distributional:
            return losses.priorities(losses.cross_entropy(logits, target))
        return losses.priorities(jnp.square(logits - target)[:, 0])

    def refreshed(self, state: DERState, clock: Clock) -> DERState:
        """With copies of the networks as targets at every `target_period`-th agent step.

        Where not every step learns, at the first one from there on that does.
        """
        due = clock.step % self.config.target_period < self.config.learn_every
        targets = jax.lax.cond(due, lambda: state.params, lambda: state.target_params)
        return replace(state, target_params=targets)

    def value(self, state: DERState, observation: jax.Array, action: jax.Array) -> jax.Array:
        """Expected return of an action, a scalar without noise, for a picture (H, W, C).

        With `clip_rewards` it is a return of clipped rewards.
        """
        return self.values(self.logits(state.params, observation, None))[action]

    def probe(
        self, state: DERState, experience: Experience, key: jax.Array, batch_size: int
    ) -> dict[str, Probe]:
        """Both networks on one batch, for diagnostics; all samples with one draw of noise."""
        view, params = experience.replay, state.params
        indices = view.sample(jax.random.fold_in(key, Draw.SAMPLE), batch_size)
        batch = self.batch(view, indices, key)
        target = self.target(state, batch)
        features = self.encoder.apply(params["encoder"], batch.observation)

        def critic_loss(critic: Any, sample: tuple[jax.Array, ...]) -> jax.Array:
            own, action, weight, own_target = (x[None] for x in sample)
            logits = _of_action(self.critic.apply(critic, own, batch.noise), action)
            return jnp.mean(weight * self.sample_losses(logits, own_target))

        def encoder_loss(encoder: Any, sample: tuple[jax.Array, ...]) -> jax.Array:
            picture, *others = sample
            return critic_loss(params["critic"], (self.encoder.apply(encoder, picture), *others))

        masks, others = self.trained.masks(state.opt_state), (batch.action, batch.weight, target)
        return {
            "encoder": Probe(
                params["encoder"],
                masks["encoder"],
                self.encoder.activity(params["encoder"], batch.observation),
                (batch.observation, *others),
                encoder_loss,
            ),
            "critic": Probe(
                params["critic"],
                masks["critic"],
                self.critic.activity(params["critic"], features, batch.noise),
                (features, *others),
                critic_loss,
            ),
        }

    def agent(self) -> Agent:
        """As the trainer takes it."""
        config = self.config
        return Agent(
            init=self.init,
            observe=lambda state, observation, first: state,
            act=self.act,
            reset=self.reset,
            recycle=partial(recycled_state, self.trained),
            learn=self.learn,
            explore=self.act if config.noisy else None,
            evaluate=self.evaluate,
            value=self.value,
            probe=self.probe,
            parameters=lambda state: state.params,
            acting=("params",),
            masks=lambda state: self.trained.masks(state.opt_state),
            modules=self.trained.modules,
            learning_starts=config.learning_starts,
            learn_every=config.learn_every,
            memory=Memory(config.buffer_size, config.n_step, config.prioritised),
            discount=config.discount,
        )


def build_der(
    config: DERConfig,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> DER:
    """DER for one seed.

    Args:
        config: settings; read, never changed.
        sizes: of the task.
        total_steps: agent steps of the whole run, from which topology schedules take their end.
        plans: each module's topology plan; made from `config` by default (see `sweep`).

    Raises:
        ValueError: when a setting is impossible, or the task shows no pictures, or too small ones,
            has continuous actions or shorter episodes than a return.
    """
    config.validate()
    shape, actions = picture_shape(sizes), _choices(sizes)
    check_episodes(config.n_step, sizes.episode_length)
    encoder = config.encoder.make(shape)
    critic = networks.make_action_values(
        encoder.size,
        actions.count,
        config.atoms if config.distributional else 1,
        config.critic.architecture(),
        dueling=config.dueling,
        noisy_std=config.noisy_std if config.noisy else None,
    )
    inits = {"encoder": encoder.init, "critic": critic.init}
    calls = max(1, learn_calls(total_steps, config.learning_starts, config.learn_every))
    # Beside its own pass a module is applied to the next observations, as the target, and as the
    # online network where that chooses the action.
    passes = 1 + (2 if config.double else 1) / 3
    trained = make_trained(
        config,
        inits,
        dict.fromkeys(inits, calls),
        plans,
        passes=dict.fromkeys(inits, passes),
        positions={"encoder": encoder.positions},
        tied={"critic": {".*": 0}} if config.noisy else None,  # mean and scale are one weight
    )
    return DER(config, actions, encoder, critic, trained)


def _choices(sizes: Sizes) -> Discrete:
    """The actions that the task takes; ValueError for continuous ones."""
    if not isinstance(sizes.action, Discrete):
        raise ValueError(
            "this agent chooses one of several actions, and the task takes continuous ones: choose "
            "another of the two"
        )
    return sizes.action


def _of_action(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Logits (B, N) of one action (B,) each, of those of all (B, A, N)."""
    return jnp.take_along_axis(logits, action[:, None, None], axis=1)[:, 0]
