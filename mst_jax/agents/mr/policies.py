"""How outputs of MR.Q's actor become actions: tanh of them, or one of several choices.

Choices: docs/specs/mrq-pixels-discrete.md §2; the rest: docs/specs/mst-and-mrq.md §6.4, §6.5, §6.8.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mst_jax.agents.base import Sizes
from mst_jax.agents.mr.config import DiscreteConfig, MRQConfig
from mst_jax.agents.parts import draws
from mst_jax.envs.spaces import Discrete


class Noise(NamedTuple):
    """What is random in one update, standard draws.

    Attributes:
        target: of the target policy's action.
        actor: of the action in the actor's loss; None where that has no chance.
    """

    target: tuple[jax.Array, ...]
    actor: jax.Array | None


class Policy(Protocol):
    """Actions of the actor's outputs (..., size); networks take actions (..., size) too."""

    @property
    def size(self) -> int:
        """Numbers that the networks take an action as."""

    def code(self, action: jax.Array) -> jax.Array:
        """Actions of the task (..., *A) as the networks take them (..., size)."""

    def act(self, outputs: jax.Array, key: jax.Array | None) -> jax.Array:
        """An action of the task for outputs (size,), exploring when there is a key."""

    def noise(self, key: jax.Array, count: int) -> Noise:
        """Draws for an update on `count` samples."""

    def target(self, outputs: jax.Array, noise: tuple[jax.Array, ...]) -> jax.Array:
        """Smoothed actions (B, size) of the target actor's outputs (B, size)."""

    def differentiable(self, outputs: jax.Array, noise: jax.Array | None) -> jax.Array:
        """Actions (B, size) through which the actor's loss has a gradient."""


@dataclass(frozen=True)
class TanhPolicy:
    """Continuous actions: tanh of the outputs, with Gaussian noise."""

    size: int
    config: MRQConfig

    def code(self, action: jax.Array) -> jax.Array:
        """The action itself."""
        return action

    def act(self, outputs: jax.Array, key: jax.Array | None) -> jax.Array:
        """See `Policy` (§6.8)."""
        action = jnp.tanh(outputs)
        if key is None:
            return action
        noise = self.config.exploration_noise * draws.normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0)

    def noise(self, key: jax.Array, count: int) -> Noise:
        """See `Policy`; the actor's loss has none."""
        return Noise((draws.normal(key, (count, self.size)),), None)

    def target(self, outputs: jax.Array, noise: tuple[jax.Array, ...]) -> jax.Array:
        """See `Policy` (§6.4)."""
        config, (gaussian,) = self.config, noise
        clip = config.target_noise_clip
        smoothing = jnp.clip(config.target_noise * gaussian, -clip, clip)
        return jnp.clip(jnp.tanh(outputs) + smoothing, -1.0, 1.0)

    def differentiable(self, outputs: jax.Array, noise: jax.Array | None) -> jax.Array:
        """See `Policy` (§6.5)."""
        del noise
        return jnp.tanh(outputs)


@dataclass(frozen=True)
class GumbelPolicy:
    """One of `size` choices: outputs are logits of Gumbel-softmax actions, at every use soft.

    The networks take a choice that was made as one-hot.
    """

    size: int
    config: DiscreteConfig

    def code(self, action: jax.Array) -> jax.Array:
        """One-hot."""
        return jax.nn.one_hot(action, self.size)

    def act(self, outputs: jax.Array, key: jax.Array | None) -> jax.Array:
        """See `Policy`; without a key the most probable choice."""
        if key is None:
            return _largest(outputs)
        gumbel_key, noise_key, epsilon_key = jax.random.split(key, 3)
        soft = self._soft(outputs, draws.gumbel(gumbel_key, outputs.shape))
        noise = self.config.exploration_noise * draws.normal(noise_key, outputs.shape)
        return self._or_any(_largest(soft + noise), epsilon_key)

    def evaluate(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        """The choice that is judged: drawn from softmax(outputs) as published, or the largest."""
        gumbel_key, epsilon_key = jax.random.split(key)
        if not self.config.greedy:
            outputs = outputs + draws.gumbel(gumbel_key, outputs.shape)
        return self._or_any(_largest(outputs), epsilon_key)

    def noise(self, key: jax.Array, count: int) -> Noise:
        """See `Policy`."""
        keys, shape = jax.random.split(key, 3), (count, self.size)
        target = draws.gumbel(keys[0], shape), draws.normal(keys[1], shape)
        return Noise(target, draws.gumbel(keys[2], shape))

    def target(self, outputs: jax.Array, noise: tuple[jax.Array, ...]) -> jax.Array:
        """See `Policy`: one-hot."""
        config, (gumbel, gaussian) = self.config, noise
        clip = config.target_noise_clip
        smoothing = jnp.clip(config.target_noise * gaussian, -clip, clip)
        return self.code(_largest(self._soft(outputs, gumbel) + smoothing))

    def differentiable(self, outputs: jax.Array, noise: jax.Array | None) -> jax.Array:
        """See `Policy`: soft choices."""
        assert noise is not None  # `noise` draws it
        return self._soft(outputs, noise)

    def _soft(self, outputs: jax.Array, gumbel: jax.Array) -> jax.Array:
        return jax.nn.softmax((outputs + gumbel) / self.config.temperature)

    def _or_any(self, choice: jax.Array, key: jax.Array) -> jax.Array:
        """The choice, or with probability `epsilon` a uniform one."""
        due_key, any_key = jax.random.split(key)
        due = jax.random.uniform(due_key) < self.config.epsilon
        return jnp.where(due, jax.random.randint(any_key, (), 0, self.size), choice)


def policy_for(config: MRQConfig, sizes: Sizes) -> Policy:
    """What fits the task's actions."""
    if isinstance(sizes.action, Discrete):
        return GumbelPolicy(sizes.action.count, config.discrete)
    return TanhPolicy(sizes.action.size, config)


def _largest(x: jax.Array) -> jax.Array:
    return jnp.argmax(x, axis=-1).astype(jnp.int32)
