"""DrQ-v2 (Yarats et al., 2022) with any regime on any module (docs/specs/drqv2.md).

One update: critic and encoder on one gradient, the actor with the new critic on the features of the
old encoder, the target critic. Keys of all that is random in it are told apart by purpose.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mst_jax import networks, topology
from mst_jax.agents.base import (
    Agent,
    Clock,
    Experience,
    Memory,
    Metrics,
    Numbers,
    Probe,
    Sizes,
    learn_calls,
)
from mst_jax.agents.parts import draws, losses
from mst_jax.agents.parts.augmentation import random_shift
from mst_jax.agents.parts.modules import check_episodes
from mst_jax.agents.parts.pictures import picture_sizes
from mst_jax.agents.parts.trained import (
    Trained,
    active_norm,
    copied,
    make_trained,
    recycled_state,
    replaced,
)
from mst_jax.agents.pixels.config import DrQv2Config
from mst_jax.replay import View

LARGEST_ACTION = 1.0 - 1e-6  # actions are kept off the bounds by this much


class Draw(IntEnum):
    """What an update's key is folded with."""

    SAMPLE = 0
    SHIFT = 1
    SHIFT_NEXT = 2
    TARGET_NOISE = 3
    ACTOR_NOISE = 4


@struct.dataclass
class DrQv2State:
    """Everything DrQ-v2 learns, for one seed.

    Attributes:
        params: {encoder, critic, actor}.
        target_critic: Polyak average of the critic, trunk included, with the critic's topology.
        opt_state: optimizer states by the same names, each with its module's topology.
    """

    params: dict[str, Any]
    target_critic: Any
    opt_state: dict[str, Any]


@struct.dataclass
class Batch:
    """What one update sees, all drawn.

    Attributes:
        observation: (B, H, W, C) uint8, shifted.
        action: (B, A).
        returns: (B,) rewards of n steps, discounted, until a termination.
        bootstrap: (B,) factor of the value that follows; 0 after a termination.
        next_observation: (B, H, W, C) uint8, n steps on, shifted by draws of its own.
        target_noise: (B, A) of the next action, in units of actions and clipped.
        actor_noise: (B, A) of the action in the actor's loss, likewise.
    """

    observation: jax.Array
    action: jax.Array
    returns: jax.Array
    bootstrap: jax.Array
    next_observation: jax.Array
    target_noise: jax.Array
    actor_noise: jax.Array


@dataclass(frozen=True)
class DrQv2:
    """Networks and optimizers, and the pure functions over `DrQv2State` that use them."""

    config: DrQv2Config
    encoder: networks.PixelEncoder
    critic: networks.PixelCritic
    actor: networks.PixelActor
    trained: Trained

    def init(self, key: jax.Array, numbers: Numbers | None = None) -> DrQv2State:
        """Random parameters, masks drawn and applied; the target equals the critic."""
        params, opt_state = self.trained.init(key, numbers)
        return DrQv2State(params, copied(params["critic"]), opt_state)

    def reset(self, state: DrQv2State, key: jax.Array) -> DrQv2State:
        """Fresh networks and optimizers; masks stay."""
        params, opt_state = self.trained.reset(key, state.opt_state)
        return DrQv2State(params, copied(params["critic"]), opt_state)

    def noise_scale(self, step: jax.Array) -> jax.Array:
        """Standard deviation of the noise on actions at an agent step, a scalar."""
        config = self.config
        share = jnp.clip(step / config.noise_steps, 0.0, 1.0)
        return (1.0 - share) * config.noise_start + share * config.noise_end

    def act(
        self,
        state: DrQv2State,
        observation: jax.Array,
        key: jax.Array | None,
        clock: Clock | None,
    ) -> jax.Array:
        """Action (A,) for a picture (H, W, C), with unclipped noise when there is a key."""
        features = self.encoder.apply(state.params["encoder"], observation)
        action = jnp.tanh(self.actor.apply(state.params["actor"], features))
        if key is None or clock is None:
            return action
        noise = self.noise_scale(clock.step) * draws.normal(key, action.shape)
        return within_bounds(action + noise)

    def noisy_action(self, actor: Any, features: jax.Array, noise: jax.Array) -> jax.Array:
        """Actions (B, A) of features (B, F) with noise (B, A)."""
        return within_bounds(jnp.tanh(self.actor.apply(actor, features)) + noise)

    def learn(
        self, state: DrQv2State, experience: Experience, key: jax.Array, clock: Clock
    ) -> tuple[DrQv2State, None, Metrics]:
        """One update on a batch drawn uniformly."""
        batch = self.batch(experience.replay, key, clock.step, self.config.batch_size)
        state, metrics = self.update(state, batch, clock.update)
        return state, None, {**metrics, "noise": self.noise_scale(clock.step)}

    def batch(self, view: View, key: jax.Array, step: jax.Array, size: int) -> Batch:
        """`size` n-step transitions, shifted, and the noise of an update at an agent step."""
        config = self.config
        keys = {draw: jax.random.fold_in(key, draw) for draw in Draw}
        raw = view.transition(view.sample(keys[Draw.SAMPLE], size), config.n_step)
        returns, bootstrap = losses.n_step_return(raw.reward, raw.terminated, config.discount)

        def noise(draw: Draw) -> jax.Array:
            drawn = self.noise_scale(step) * draws.normal(keys[draw], raw.action.shape)
            return jnp.clip(drawn, -config.noise_clip, config.noise_clip)

        return Batch(
            random_shift(keys[Draw.SHIFT], raw.observation, config.pad),
            raw.action,
            returns,
            bootstrap,
            random_shift(keys[Draw.SHIFT_NEXT], raw.next_observation, config.pad),
            noise(Draw.TARGET_NOISE),
            noise(Draw.ACTOR_NOISE),
        )

    def update(
        self, state: DrQv2State, batch: Batch, step: jax.Array
    ) -> tuple[DrQv2State, Metrics]:
        """Critic with encoder, actor and target, once each, on one batch."""
        state, features, critic_metrics = self.update_critic(state, batch, step)
        state, actor_metrics = self.update_actor(state, features, batch.actor_noise, step)
        masks = topology.masks(state.opt_state["critic"])
        target = topology.update_target(
            state.target_critic, state.params["critic"], masks, self.config.tau
        )
        return replace(state, target_critic=target), {**critic_metrics, **actor_metrics}

    def target(self, state: DrQv2State, batch: Batch) -> jax.Array:
        """The critic's targets (B,), of the online encoder, the actor and the target critic."""
        features = self.encoder.apply(state.params["encoder"], batch.next_observation)
        action = self.noisy_action(state.params["actor"], features, batch.target_noise)
        values = self.critic.apply(state.target_critic, features, action)
        return batch.returns + batch.bootstrap * jnp.min(values, axis=-1)

    def critic_loss(
        self,
        params: tuple[Any, Any],
        observation: jax.Array,
        action: jax.Array,
        target: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The loss of encoder and critic; also the features (B, F) and the values (B, 2)."""
        encoder, critic = params
        features = self.encoder.apply(encoder, observation)
        values = self.critic.apply(critic, features, action)
        return losses.critic_loss(values, target), (features, values)

    def update_critic(
        self, state: DrQv2State, batch: Batch, step: jax.Array
    ) -> tuple[DrQv2State, jax.Array, Metrics]:
        """One step of critic and encoder; also the features (B, F) before it."""
        encoder, critic = old = (state.params["encoder"], state.params["critic"])
        target = self.target(state, batch)
        seen = batch.observation, batch.action, target
        value_and_grad = topology.value_and_grad(self.critic_loss, has_aux=True)
        (loss, (features, values)), grads = value_and_grad(old, *seen)
        activities = {
            "encoder": partial(self.encoder.activity, encoder, batch.observation),
            "critic": partial(self.critic.activity, critic, features, batch.action),
        }
        of_module = {
            "encoder": lambda encoder: self.critic_loss((encoder, critic), *seen)[0],
            "critic": lambda critic: self.critic_loss((encoder, critic), *seen)[0],
        }
        metrics = {"critic/loss": loss, "critic/value": jnp.mean(values)}
        for (name, activity), own in zip(activities.items(), grads, strict=True):
            params, opt_state = self.trained.step(
                name,
                own,
                state.params[name],
                state.opt_state[name],
                step,
                activity,
                of_module[name],
            )
            metrics[f"{name}/gradient_norm"] = active_norm(own, opt_state)
            state = replaced(state, name, params, opt_state)
        return state, features, metrics

    def actor_loss(
        self, actor: Any, critic: Any, features: jax.Array, noise: jax.Array
    ) -> jax.Array:
        """Minus the mean of the smaller value of noisy actions, on constant features (B, F)."""
        action = self.noisy_action(actor, features, noise)
        return losses.actor_loss(self.critic.apply(critic, features, action))

    def update_actor(
        self, state: DrQv2State, features: jax.Array, noise: jax.Array, step: jax.Array
    ) -> tuple[DrQv2State, Metrics]:
        """One step of the actor up the present critic's value, on features (B, F)."""
        params, opt_state = state.params["actor"], state.opt_state["actor"]
        critic = state.params["critic"]

        def loss_of(params: Any) -> jax.Array:
            return self.actor_loss(params, critic, features, noise)

        loss, grads = topology.value_and_grad(loss_of)(params)
        activity = partial(self.actor.activity, params, features)
        actor, opt_state = self.trained.step(
            "actor", grads, params, opt_state, step, activity, loss_of
        )
        metrics = {"actor/loss": loss, "actor/gradient_norm": active_norm(grads, opt_state)}
        return replaced(state, "actor", actor, opt_state), metrics

    def value(self, state: DrQv2State, observation: jax.Array, action: jax.Array) -> jax.Array:
        """Mean value of both heads, a scalar, for a picture (H, W, C) and an action (A,)."""
        features = self.encoder.apply(state.params["encoder"], observation)
        return jnp.mean(self.critic.apply(state.params["critic"], features, action))

    def probe(
        self, state: DrQv2State, experience: Experience, key: jax.Array, batch_size: int
    ) -> dict[str, Probe]:
        """All networks on one batch, for diagnostics; with the noise that is left at the end."""
        end = jnp.asarray(self.config.noise_steps)
        batch = self.batch(experience.replay, key, end, batch_size)
        params, target = state.params, self.target(state, batch)
        features = self.encoder.apply(params["encoder"], batch.observation)

        def encoder_loss(encoder: Any, sample: tuple[jax.Array, ...]) -> jax.Array:
            return self.critic_loss((encoder, params["critic"]), *(x[None] for x in sample))[0]

        def critic_loss(critic: Any, sample: tuple[jax.Array, ...]) -> jax.Array:
            own, action, own_target = (x[None] for x in sample)
            return losses.critic_loss(self.critic.apply(critic, own, action), own_target)

        def actor_loss(actor: Any, sample: tuple[jax.Array, ...]) -> jax.Array:
            return self.actor_loss(actor, params["critic"], *(x[None] for x in sample))

        seen = {
            "encoder": (
                self.encoder.activity(params["encoder"], batch.observation),
                (batch.observation, batch.action, target),
                encoder_loss,
            ),
            "critic": (
                self.critic.activity(params["critic"], features, batch.action),
                (features, batch.action, target),
                critic_loss,
            ),
            "actor": (
                self.actor.activity(params["actor"], features),
                (features, batch.actor_noise),
                actor_loss,
            ),
        }
        masks = self.trained.masks(state.opt_state)
        return {name: Probe(params[name], masks[name], *own) for name, own in seen.items()}

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
            value=self.value,
            probe=self.probe,
            parameters=lambda state: state.params,
            acting=("params/encoder", "params/actor"),
            masks=lambda state: self.trained.masks(state.opt_state),
            modules=self.trained.modules,
            learning_starts=config.learning_starts,
            learn_every=config.learn_every,
            memory=Memory(config.buffer_size, config.n_step),
            discount=config.discount,
        )


def within_bounds(action: jax.Array) -> jax.Array:
    """Actions clamped into the action space; their gradient is as if they had not been."""
    clamped = jax.lax.stop_gradient(jnp.clip(action, -LARGEST_ACTION, LARGEST_ACTION))
    return clamped + (action - jax.lax.stop_gradient(action))


def build_drqv2(
    config: DrQv2Config,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> DrQv2:
    """DrQ-v2 for one seed.

    Args:
        config: settings; read, never changed.
        sizes: of the task.
        total_steps: agent steps of the whole run, from which topology schedules take their end.
        plans: each module's topology plan; made from `config` by default (see `sweep`).

    Raises:
        ValueError: when a setting is impossible, or the task shows no pictures, has discrete
            actions or shorter episodes than a return.
    """
    config.validate()
    shape, action_size = picture_sizes(sizes)
    check_episodes(config.n_step, sizes.episode_length)
    encoder = networks.make_pixel_encoder(
        shape, config.encoder.architecture(), config.encoder.strided
    )
    inputs = (encoder.size, action_size, config.feature_dim)
    critic = networks.make_pixel_critic(*inputs, config.critic.architecture())
    actor = networks.make_pixel_actor(*inputs, config.actor.architecture())
    inits = {"encoder": encoder.init, "critic": critic.init, "actor": actor.init}
    calls = max(1, learn_calls(total_steps, config.learning_starts, config.learn_every))
    # The next features; the target critic's values, and the critic in the actor's loss, forward and
    # back; the next actions.
    passes = {"encoder": 4 / 3, "critic": 2.0, "actor": 4 / 3}
    trained = make_trained(
        config,
        inits,
        dict.fromkeys(inits, calls),
        plans,
        passes=passes,
        positions={"encoder": encoder.positions},
    )
    return DrQv2(config, encoder, critic, actor, trained)
