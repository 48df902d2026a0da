"""Stream AC(λ) (Elsayed et al., 2024): an actor and a critic that learn from each transition once.

Nothing is stored: eligibility traces in the optimizers' states carry the past. Source:
docs/specs/streaming.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    Latest,
    Metrics,
    Numbers,
    Probe,
    Sizes,
    learn_calls,
)
from mst_jax.agents.parts import draws
from mst_jax.agents.parts.running_statistics import (
    RunningStatistics,
    empty_statistics,
    normalised,
    normalised_operations,
    observed,
    of_sample,
)
from mst_jax.agents.parts.trained import (
    Trained,
    make_trained,
    recycled_state,
    replaced,
)
from mst_jax.agents.parts.vectors import vector_sizes
from mst_jax.agents.stream import losses
from mst_jax.agents.stream.config import StreamACConfig
from mst_jax.agents.stream.scaling import RewardScale, Units, empty_scale, units_of

NOTED = ("trace_norm", "step_size", "learning_rate")  # fields of the state of `obgd` and its kind


@struct.dataclass
class StreamState:
    """Everything a streaming agent learns, for one seed.

    Attributes:
        params: {critic, actor}.
        opt_state: optimizer states by the same names, with traces and topology.
        statistics: of the observations.
        reward_scale: of the rewards.
    """

    params: dict[str, Any]
    opt_state: dict[str, Any]
    statistics: RunningStatistics
    reward_scale: RewardScale


@struct.dataclass
class Transition:
    """One transition as the networks see it, or a batch (B, ...) of them.

    Attributes:
        features: (O,), normalised observation.
        action: (A,), as it was drawn, in the policy's units.
        reward: scalar, scaled.
        over: bool scalar; nothing comes after it.
        next_features: (O,).
    """

    features: jax.Array
    action: jax.Array
    reward: jax.Array
    over: jax.Array
    next_features: jax.Array


@dataclass(frozen=True)
class StreamAC:
    """Networks, optimizers and the pure functions over `StreamState` that use them."""

    config: StreamACConfig
    sizes: Sizes
    critic: networks.Critic
    actor: networks.GaussianActor
    trained: Trained
    units: Units | None

    def init(self, key: jax.Array, numbers: Numbers | None = None) -> StreamState:
        """Parameters by SparseInit, masks drawn and applied; traces are zero."""
        params, opt_state = self.trained.init(key, numbers)
        size = self.sizes.observation.size - self.sizes.observation.unscaled
        return StreamState(
            self._silenced(key, params, opt_state), opt_state, empty_statistics(size), empty_scale()
        )

    def reset(self, state: StreamState, key: jax.Array) -> StreamState:
        """Fresh networks and traces; masks and statistics stay."""
        params, opt_state = self.trained.reset(key, state.opt_state)
        params = self._silenced(key, params, opt_state)
        return replace(state, params=params, opt_state=opt_state)

    def observe(self, state: StreamState, observation: jax.Array, first: jax.Array) -> StreamState:
        """Takes in first observations (1, O); all others came in as the end of a transition."""
        if not self.config.normalize_observations:
            return state
        seen = observed(state.statistics, observation, prior=0.0)
        keep = lambda new, old: jnp.where(first[0], new, old)  # noqa: E731
        return replace(state, statistics=jax.tree.map(keep, seen, state.statistics))

    def act(
        self,
        state: StreamState,
        observation: jax.Array,
        key: jax.Array | None,
        clock: Clock | None,
    ) -> jax.Array:
        """Action (A,) for an observation (O,): drawn, or the mean without a key."""
        mean, std = self.policy(state.params["actor"], self.features(state, observation))
        action = mean if key is None else mean + std * draws.normal(key, mean.shape)
        return action if self.units is None else self.units.stored(action)

    def operations(self, state: StreamState) -> list[networks.Operation]:
        """The policy as it is judged, of a raw observation."""
        found: list[networks.Operation] = []
        if self.config.normalize_observations:
            size = self.sizes.observation.size
            found += normalised_operations(of_sample(state.statistics), size)
        found += self.actor.operations(state.params["actor"])
        return found if self.units is None else [*found, *self.units.stored_operations()]

    def learn(
        self, state: StreamState, experience: Experience, key: jax.Array, clock: Clock
    ) -> tuple[StreamState, None, Metrics]:
        """One step of both networks along their traces, by the TD error of the last transition."""
        if experience.latest is None:
            raise ValueError("a streaming agent learns from the latest transition, and none came")
        latest = jax.tree.map(lambda x: x[0], experience.latest)
        state, transition = self.taken_in(state, latest)
        error, value, slope = self.td_error(state.params["critic"], transition)

        def objective(actor: Any) -> tuple[jax.Array, jax.Array]:
            mean, std = self.policy(actor, transition.features)
            bonus = self.config.entropy_weight * jnp.sign(error) * losses.entropy(std)
            return losses.log_density(transition.action, mean, std) + bonus, jnp.mean(std)

        ascent, std = jax.grad(objective, has_aux=True)(state.params["actor"])
        told = {"td_error": error, "discount": self.config.discount, "reset": transition.over}
        inputs = transition.features[None]
        state, actor_metrics = self._step("actor", state, ascent, told, self.actor, inputs, clock)
        state, critic_metrics = self._step("critic", state, slope, told, self.critic, inputs, clock)
        metrics = {"critic/td_error": jnp.abs(error), "critic/value": value, "actor/std": std}
        return state, None, {**metrics, **actor_metrics, **critic_metrics}

    def taken_in(self, state: StreamState, latest: Latest) -> tuple[StreamState, Transition]:
        """The last transition as it is learned from, and the state with it in the statistics.

        The observation is normalised as it was when its action was chosen, the next one and the
        reward by statistics that know them.
        """
        features = self.features(state, latest.observation)
        over = latest.terminated | latest.truncated
        reward = latest.reward
        if self.config.scale_rewards:
            scale = state.reward_scale.after(reward, over, self.config.discount)
            state, reward = replace(state, reward_scale=scale), reward / scale.deviation
        if self.config.normalize_observations:
            seen = observed(state.statistics, latest.next_observation[None], prior=0.0)
            state = replace(state, statistics=seen)
        next_features = self.features(state, latest.next_observation)
        return state, Transition(features, self._drawn(latest.action), reward, over, next_features)

    def td_error(self, critic: Any, transition: Transition) -> tuple[jax.Array, jax.Array, Any]:
        """The TD error δ and the value of a transition, scalars, and the value's gradient."""
        value, slope = jax.value_and_grad(self.state_value)(critic, transition.features)
        after = self.state_value(critic, transition.next_features)
        return self._error(transition, value, after), value, slope

    def _error(self, transition: Transition, value: jax.Array, after: jax.Array) -> jax.Array:
        return transition.reward + self.config.discount * (1.0 - transition.over) * after - value

    def features(self, state: StreamState, observation: jax.Array) -> jax.Array:
        """Observations (..., O) as the networks see them, by the present statistics."""
        if not self.config.normalize_observations:
            return observation
        return normalised(of_sample(state.statistics), observation)

    def policy(self, actor: Any, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation (..., A) of the actions, in the policy's units."""
        mean, raw = self.actor.apply(actor, features)
        return mean, jax.nn.softplus(raw)

    def state_value(self, critic: Any, features: jax.Array) -> jax.Array:
        """Values (...) of features (..., O), in units of scaled rewards."""
        return self.critic.apply(critic, features)[..., 0]

    def value(self, state: StreamState, observation: jax.Array, action: jax.Array) -> jax.Array:
        """The value of a raw observation (O,), a scalar in units of reward, whatever the action."""
        value = self.state_value(state.params["critic"], self.features(state, observation))
        return value * state.reward_scale.deviation if self.config.scale_rewards else value

    def probe(
        self, state: StreamState, experience: Experience, key: jax.Array, batch_size: int
    ) -> dict[str, Probe]:
        """Both networks on some of the last transitions, by the present parameters.

        Here a truncation is not an end: what is stored for looking at does not tell.
        """
        raw = experience.replay.transition(experience.replay.sample(key, batch_size), 1)
        scale = state.reward_scale.deviation if self.config.scale_rewards else 1.0
        batch = Transition(
            self.features(state, raw.observation),
            self._drawn(raw.action),
            raw.reward[:, 0] / scale,
            raw.terminated[:, 0],
            self.features(state, raw.next_observation),
        )
        params = state.params
        values, after = (
            self.state_value(params["critic"], x) for x in (batch.features, batch.next_features)
        )
        error = self._error(batch, values, after)

        def critic_loss(critic: Any, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
            features, target = sample
            return losses.critic_loss(self.state_value(critic, features), target)

        def actor_loss(actor: Any, sample: tuple[jax.Array, ...]) -> jax.Array:
            features, action, error = sample
            return losses.actor_loss(error, action, *self.policy(actor, features))

        masks = self.trained.masks(state.opt_state)
        critic = self.critic.activity(params["critic"], batch.features)
        actor = self.actor.activity(params["actor"], batch.features)
        return {
            "critic": Probe(
                params["critic"],
                masks["critic"],
                critic,
                (batch.features, values + error),
                critic_loss,
            ),
            "actor": Probe(
                params["actor"],
                masks["actor"],
                actor,
                (batch.features, batch.action, error),
                actor_loss,
            ),
        }

    def agent(self) -> Agent:
        """As the trainer takes it."""
        return Agent(
            init=self.init,
            observe=self.observe,
            act=self.act,
            reset=self.reset,
            recycle=partial(recycled_state, self.trained),
            learn=self.learn,
            value=self.value,
            probe=self.probe,
            parameters=lambda state: state.params,
            acting=("params/actor", "statistics"),
            masks=lambda state: self.trained.masks(state.opt_state),
            modules=self.trained.modules,
            learning_starts=0,
            discount=self.config.discount,
            observes_start=True,
            most_environments=1,
            operations=self.operations,
        )

    def _step(
        self,
        name: str,
        state: StreamState,
        grads: Any,
        told: Mapping[str, Any],
        network: networks.Critic | networks.GaussianActor,
        inputs: jax.Array,
        clock: Clock,
    ) -> tuple[StreamState, Metrics]:
        """One step of a module along its traces, to which `grads` are added."""
        params, opt_state = state.params[name], state.opt_state[name]
        params, opt_state = self.trained.step(
            name,
            grads,
            params,
            opt_state,
            clock.update,
            partial(network.activity, params, inputs),
            growth=jax.tree.map(lambda g: told["td_error"] * g, grads),
            **{key: told[key] for key in self.trained.asks[name]},
        )
        metrics = {f"{name}/{key}": value for key, value in _noted(opt_state).items()}
        return replaced(state, name, params, opt_state), metrics

    def _drawn(self, action: jax.Array) -> jax.Array:
        return action if self.units is None else self.units.drawn(action)

    def _silenced(self, key: jax.Array, params: Any, opt_state: Any) -> Any:
        """SparseInit of the modules that have it within their masks; `params` else."""
        fresh = dict(params)
        for name, masks in self.trained.masks(opt_state).items():
            config = getattr(self.config, name)
            if config.init_within_mask:
                own = jax.random.fold_in(key, sorted(params).index(name))
                ones = jax.tree.map(jnp.ones_like, params[name])
                active = jax.tree.map(lambda x: x != 0, topology.apply(masks, ones))
                again = networks.sparse_init(own, params[name], config.init_sparsity, active)
                fresh[name] = topology.apply(masks, again)
        return fresh


def _noted(opt_state: Any) -> Metrics:
    """What an optimizer of the kind of `obgd` notes of its last step; nothing of others."""

    def notes(node: Any) -> bool:
        return all(hasattr(node, key) for key in NOTED)

    found = [node for node in jax.tree.leaves(opt_state, is_leaf=notes) if notes(node)]
    if len(found) != 1:
        return {}
    norm, size, rate = (getattr(found[0], key) for key in NOTED)
    bounded = (size < rate).astype(jnp.float32)
    return {"trace_norm": norm, "step_size": size, "bounded": bounded}


def build_stream_ac(
    config: StreamACConfig,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> StreamAC:
    """Stream AC(λ) for one seed.

    Args:
        config: settings; read, never changed.
        sizes: of the task.
        total_steps: agent steps of the whole run, from which schedules take their end.
        plans: topology plans in place of those that the settings describe.

    Returns:
        Its functions.

    Raises:
        ValueError: when a setting is impossible, or the task is no vector of continuous actions.
    """
    config.validate()
    observation_size, action_size = vector_sizes(sizes)
    critic = networks.make_critic(observation_size, config.critic.architecture(), heads=1)
    actor = networks.make_gaussian_actor(
        observation_size, action_size, config.actor.architecture(), spread="std"
    )

    def begun(name: str, init: Any) -> Any:
        shapes, share = jax.eval_shape(init, jax.random.key(0)), getattr(config, name).init_sparsity
        return lambda key: networks.sparse_init(key, shapes, share)

    inits = {"critic": begun("critic", critic.init), "actor": begun("actor", actor.init)}
    updates = learn_calls(total_steps, 0)
    passes = {"critic": 4 / 3}  # the value of the next observation
    trained = make_trained(config, inits, dict.fromkeys(inits, updates), plans, passes=passes)
    units = units_of(sizes.action, config.action_scale)
    return StreamAC(config, sizes, critic, actor, trained, units)
