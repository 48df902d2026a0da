"""What SAC, DDPG and TD3 share: normalised observations, uniform replay, several updates a step.

An algorithm adds how to act and one update (docs/specs/network-sparsity.md §2).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from mst_jax import networks, topology
from mst_jax.agents.actor_critic.config import ActorCriticConfig
from mst_jax.agents.base import (
    Act,
    Agent,
    Clock,
    Experience,
    Memory,
    Metrics,
    Numbers,
    Probe,
    Review,
    Sizes,
    learn_calls,
)
from mst_jax.agents.parts import losses
from mst_jax.agents.parts.critic import critic_probe, update_critic
from mst_jax.agents.parts.modules import check_episodes
from mst_jax.agents.parts.running_statistics import (
    RunningStatistics,
    empty_statistics,
    normalised,
    normalised_operations,
    observed,
)
from mst_jax.agents.parts.temperature import TemperatureConfig
from mst_jax.agents.parts.trained import (
    Trained,
    active_norm,
    copied,
    make_trained,
    over_updates,
    recycled_state,
    replaced,
)
from mst_jax.agents.parts.vectors import vector_sizes
from mst_jax.replay import View


@struct.dataclass
class ActorCriticState:
    """Everything an actor-critic agent learns, for one seed.

    Attributes:
        params: {critic, actor} and, for SAC, temperature.
        target_critic: Polyak average of the critic, with the critic's topology.
        opt_state: optimizer states by the same names, each with its module's topology.
        statistics: of the observations.
    """

    params: dict[str, Any]
    target_critic: Any
    opt_state: dict[str, Any]
    statistics: RunningStatistics


@struct.dataclass
class Batch:
    """Transitions, observations normalised; a leading axis of B, or of (updates, B).

    Attributes:
        observation: (B, O).
        action: (B, A).
        reward: (B,); of several steps, discounted.
        terminated: (B,) bool, of the first step.
        next_observation: (B, O); of several steps, the one after the last.
        bootstrap: (B,), factor of the value that follows returns of several steps; None for those
            of one.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    next_observation: jax.Array
    bootstrap: jax.Array | None = None


Config = TypeVar("Config", bound=ActorCriticConfig)
State = TypeVar("State", bound=ActorCriticState)  # an algorithm may add to it
Update = Callable[
    [State, Batch, jax.Array, jax.Array], tuple[State, Metrics]
]  # (state, batch, key, number of the update)


@dataclass(frozen=True)
class ActorCritic(Generic[Config]):
    """Networks and optimizers, and the pure functions over `ActorCriticState` that use them."""

    config: Config
    sizes: Sizes
    critic: networks.Critic
    trained: Trained

    def init(self, key: jax.Array, numbers: Numbers | None = None) -> ActorCriticState:
        """Random parameters, masks drawn and applied; the target equals the critic."""
        params, opt_state = self.trained.init(key, numbers)
        size, unscaled = vector_sizes(self.sizes)[0], self.sizes.observation.unscaled
        statistics = empty_statistics(size - unscaled)
        return ActorCriticState(params, copied(params["critic"]), opt_state, statistics)

    def reset(self, state: State, key: jax.Array) -> State:
        """Fresh networks, optimizers and temperature; masks and statistics stay (§4 "Reset")."""
        params, opt_state = self.trained.reset(key, state.opt_state)
        return replace(
            state, params=params, target_critic=copied(params["critic"]), opt_state=opt_state
        )

    def observe(self, state: State, observation: jax.Array, first: jax.Array) -> State:
        """Adds raw observations (E, O), first ones like all others, to the running statistics."""
        if not self.config.normalize_observations:
            return state
        return replace(state, statistics=observed(state.statistics, observation))

    def normalise(self, state: ActorCriticState, observation: jax.Array) -> jax.Array:
        """Observations (..., O) as the networks see them, by the present statistics."""
        if not self.config.normalize_observations:
            return observation
        return normalised(state.statistics, observation)

    def normalise_operations(self, state: ActorCriticState) -> list[networks.Operation]:
        """`normalise` as operations."""
        if not self.config.normalize_observations:
            return []
        return normalised_operations(state.statistics, self.sizes.observation.size)

    def learn(
        self,
        update: Update[State],
        state: State,
        view: View,
        key: jax.Array,
        clock: Clock,
    ) -> tuple[State, None, Metrics]:
        """`updates_per_step` updates, each on a batch of its own; metrics are their means."""
        count = self.config.updates_per_step
        sample_key, update_key = jax.random.split(key)
        batches = self.batches(state, view, sample_key, clock)

        def step(carry: State, x: tuple) -> tuple[State, Metrics]:
            index, batch = x
            own_key = jax.random.fold_in(update_key, index)
            return update(carry, batch, own_key, clock.update * count + index)

        state, metrics = jax.lax.scan(step, state, (jnp.arange(count), batches))
        return state, None, over_updates(metrics)

    def batches(self, state: ActorCriticState, view: View, key: jax.Array, clock: Clock) -> Batch:
        """All batches of one step, leading axes (updates, B)."""
        lead = (self.config.updates_per_step, self.config.batch_size)
        several: jax.Array | bool = True
        if self.config.n_step_delay:
            update = clock.update * lead[0] + jnp.arange(lead[0])
            several = jnp.repeat(update >= self.config.n_step_delay, lead[1])
        batch = self.batch(state, view, key, lead[0] * lead[1], several)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), batch)

    def batch(
        self,
        state: ActorCriticState,
        view: View,
        key: jax.Array,
        size: int,
        several: jax.Array | bool = True,
    ) -> Batch:
        """Transitions drawn uniformly, observations normalised by the present statistics.

        With `n_step` above one, those are of that many steps where `several` (size,) says so.
        """
        indices = view.sample(key, size)
        raw = view.transition(indices, 1)
        one = Batch(
            self.normalise(state, raw.observation),
            raw.action,
            raw.reward[:, 0],
            raw.terminated[:, 0],
            self.normalise(state, raw.next_observation),
        )
        if self.config.n_step == 1:
            return one
        raw = view.transition(indices, self.config.n_step)
        returns, bootstrap = losses.n_step_return(raw.reward, raw.terminated, self.discount)
        once = self.discount * (1.0 - one.terminated)
        ahead = self.normalise(state, raw.next_observation)
        return replace(
            one,
            reward=jnp.where(several, returns, one.reward),
            bootstrap=jnp.where(several, bootstrap, once),
            next_observation=jnp.where(jnp.reshape(several, (-1, 1)), ahead, one.next_observation),
        )

    def values(self, params: Any, observation: jax.Array, action: jax.Array) -> jax.Array:
        """Values (..., heads) of normalised observations (..., O) and actions (..., A)."""
        return self.critic.apply(params, jnp.concatenate([observation, action], axis=-1))

    def value(
        self, state: ActorCriticState, observation: jax.Array, action: jax.Array
    ) -> jax.Array:
        """Mean value of the critics, a scalar, for a raw observation (O,) and an action (A,)."""
        features = self.normalise(state, observation)
        return jnp.mean(self.values(state.params["critic"], features, action))

    @property
    def discount(self) -> float:
        """Discount per agent step on this task."""
        return self.config.discount_for(self.sizes.episode_length)

    def target(
        self,
        state: ActorCriticState,
        batch: Batch,
        next_action: jax.Array,
        next_entropy_bonus: jax.Array | float,
    ) -> jax.Array:
        """Targets (B,) from the target critic and the next actions (B, A)."""
        next_values = self.values(state.target_critic, batch.next_observation, next_action)
        if batch.bootstrap is not None:
            return losses.n_step_target(
                batch.reward, batch.bootstrap, next_values, next_entropy_bonus
            )
        return losses.td_target(
            batch.reward, batch.terminated, next_values, next_entropy_bonus, self.discount
        )

    def critic_probe(self, state: ActorCriticState, batch: Batch, target: jax.Array) -> Probe:
        """The critic on a batch, towards targets (B,)."""
        inputs = jnp.concatenate([batch.observation, batch.action], axis=-1)
        return critic_probe(self.critic, state, inputs, target, losses.critic_loss)

    def update_critic(
        self,
        state: State,
        batch: Batch,
        next_action: jax.Array,
        next_entropy_bonus: jax.Array | float,
        step: jax.Array,
        tau: jax.Array | float,
    ) -> tuple[State, Metrics]:
        """One critic step towards the target critic, then a Polyak step `tau` of the latter."""
        inputs = jnp.concatenate([batch.observation, batch.action], axis=-1)
        target = self.target(state, batch, next_action, next_entropy_bonus)
        state, _, metrics = update_critic(
            self.trained, self.critic, state, inputs, target, losses.critic_loss, step
        )
        # The mask goes with the weights: a rewired critic's target follows its topology.
        masks = topology.masks(state.opt_state["critic"])
        target_critic = topology.update_target(
            state.target_critic, state.params["critic"], masks, tau
        )
        return replace(state, target_critic=target_critic), metrics

    def update_actor(
        self,
        state: State,
        loss: Callable[[Any], jax.Array],
        activity: Callable[[Any], networks.Activity],
        step: jax.Array,
    ) -> tuple[State, Metrics]:
        """One step of a deterministic actor down `loss`; both functions take its parameters."""
        params, opt_state = state.params["actor"], state.opt_state["actor"]
        value, grads = topology.value_and_grad(loss)(params)
        actor, opt_state = self.trained.step(
            "actor", grads, params, opt_state, step, partial(activity, params), loss
        )
        metrics = {"actor/loss": value, "actor/gradient_norm": active_norm(grads, opt_state)}
        return replaced(state, "actor", actor, opt_state), metrics


def make_actor_critic(
    config: Config,
    sizes: Sizes,
    total_steps: int,
    actor_init: Callable[[jax.Array], Any],
    plans: Mapping[str, topology.Plan] | None,
    temperature: TemperatureConfig | None = None,
    actor_delay: int = 1,
) -> ActorCritic[Config]:
    """The shared part.

    Args:
        config: settings; read, never changed.
        sizes: of the task.
        total_steps: agent steps of the whole run.
        actor_init: key -> the actor's parameters.
        plans: topology plans in place of those that the settings describe.
        temperature: of a maximum-entropy agent.
        actor_delay: critic updates from one actor update to the next.

    Returns:
        The networks, their optimizers and the functions on them.

    Raises:
        ValueError: when a setting is impossible.
    """
    config.validate()
    check_episodes(config.n_step, sizes.episode_length)
    critic = networks.make_critic(
        sum(vector_sizes(sizes)),
        config.critic.architecture(),
        heads=2 if config.twin else 1,
    )
    calls = max(1, learn_calls(total_steps, config.learning_starts))
    updates = calls * config.updates_per_step
    own = {"critic": updates, "actor": max(1, updates // actor_delay)}
    inits = {"critic": critic.init, "actor": actor_init}
    # The target critic's values, and the critic in the actor's loss, forward and back; the actor's
    # next actions at every update of the critic.
    passes = {"critic": 1 + 1 / 3 + 2 / 3 / actor_delay, "actor": 1 + actor_delay / 3}
    trained = make_trained(config, inits, own, plans, temperature=temperature, passes=passes)
    return ActorCritic(config, sizes, critic, trained)


def _review(config: ActorCriticConfig) -> Review | None:
    if not config.review_every:
        return None
    return Review(config.review_every, config.review_distance, config.review_fewest)


class Algorithm(Protocol[State]):
    """How to act and one update, on the shared core; `core.init` and `core.reset` make states."""

    @property
    def core(self) -> ActorCritic:
        """Networks and optimizers."""

    @property
    def act(self) -> Act:
        """See `Agent`."""

    @property
    def update(self) -> Update[State]:
        """One update on one batch."""

    @property
    def probe(self) -> Callable[[State, Batch, jax.Array], dict[str, Probe]]:
        """(state, batch, key) -> {module: Probe}."""


def agent_of(algorithm: Algorithm[State]) -> Agent:
    """The agent of an algorithm."""
    core = algorithm.core
    modules = core.trained.modules

    def learn(
        state: State, experience: Experience, key: jax.Array, clock: Clock
    ) -> tuple[State, None, Metrics]:
        return core.learn(algorithm.update, state, experience.replay, key, clock)

    def probes(
        state: State, experience: Experience, key: jax.Array, batch_size: int
    ) -> dict[str, Probe]:
        own_key = jax.random.fold_in(key, 0)
        return algorithm.probe(
            state, core.batch(state, experience.replay, own_key, batch_size), key
        )

    return Agent(
        init=core.init,
        observe=core.observe,
        act=algorithm.act,
        reset=core.reset,
        recycle=partial(recycled_state, core.trained),
        learn=learn,
        value=core.value,
        probe=probes,
        parameters=lambda state: {name: state.params[name] for name in modules},
        acting=("params/actor", "statistics"),
        masks=lambda state: core.trained.masks(state.opt_state),
        modules=modules,
        learning_starts=core.config.learning_starts,
        memory=Memory(core.config.buffer_size, core.config.n_step, review=_review(core.config)),
        discount=core.discount,
    )
