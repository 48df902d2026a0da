"""MR.Q's modules as pure functions (specs/mst-and-mrq.md §6.2; Fujimoto et al., 2025)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks.mlp import MLP, Architecture, dense

Params = dict[str, Any]


class EncoderSizes(NamedTuple):
    """Widths of the latents and of the predicted reward distribution."""

    zs: int = 512
    za: int = 256
    zsa: int = 512
    bins: int = 65


class Prediction(NamedTuple):
    """What the linear head reads off a state-action latent."""

    terminal: jax.Array  # (...,), unsquashed
    next_zs: jax.Array  # (..., zs), neither normalised nor activated
    reward_logits: jax.Array  # (..., bins)


class Encoder(NamedTuple):
    """Pure functions of the encoder; `params` has the entries zs, za, zsa and head."""

    init: Callable[[jax.Array], Params]
    zs: Callable[[Params, jax.Array], jax.Array]  # observation (..., O) -> state latent (..., zs)
    zsa: Callable[[Params, jax.Array, jax.Array], jax.Array]  # zs, action (..., A) -> (..., zsa)
    predict: Callable[[Params, jax.Array], Prediction]  # zsa -> what follows


class Critic(NamedTuple):
    """Twin value heads on the state-action latent; `params` has the entries q1 and q2."""

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]  # zsa -> values (..., 2)


class Actor(NamedTuple):
    """Deterministic policy on the state latent."""

    init: Callable[[jax.Array], Params]
    apply: Callable[
        [Params, jax.Array], jax.Array
    ]  # zs -> pre-activation (..., A); the action is its tanh


class _Encoder(nn.Module):
    sizes: EncoderSizes
    architecture: Architecture

    def setup(self) -> None:
        self.zs = MLP(self.sizes.zs, self.architecture, activate_output=True)
        self.za = dense(self.sizes.za, name=None)
        self.zsa = MLP(self.sizes.zsa, self.architecture)
        self.head = dense(1 + self.sizes.zs + self.sizes.bins, name=None)

    def embed_observation(self, observation: jax.Array) -> jax.Array:
        return self.zs(observation)

    def embed_action(self, zs: jax.Array, action: jax.Array) -> jax.Array:
        # The action layer is a single linear layer with ELU in every architecture (specs §2.4).
        return self.zsa(jnp.concatenate([zs, nn.elu(self.za(action))], axis=-1))

    def predict(self, zsa: jax.Array) -> Prediction:
        terminal, next_zs, logits = jnp.split(self.head(zsa), [1, 1 + self.sizes.zs], axis=-1)
        return Prediction(terminal[..., 0], next_zs, logits)

    def __call__(self, observation: jax.Array, action: jax.Array) -> Prediction:
        return self.predict(self.embed_action(self.embed_observation(observation), action))


class _Critic(nn.Module):
    architecture: Architecture

    @nn.compact
    def __call__(self, zsa: jax.Array) -> jax.Array:
        return jnp.concatenate(
            [_ValueHead(self.architecture, name=q)(zsa) for q in ("q1", "q2")], -1
        )


class _ValueHead(nn.Module):
    architecture: Architecture

    @nn.compact
    def __call__(self, zsa: jax.Array) -> jax.Array:
        arch = self.architecture
        # The last hidden layer is the MLP's activated output: `depth` counts it.
        trunk = MLP(
            arch.hidden,
            Architecture(arch.hidden, arch.depth - 1, arch.activation, arch.norm, arch.residual),
            activate_output=True,
            input_shortcut=True,
            name="trunk",
        )
        return dense(1, "value")(trunk(zsa))


def make_encoder(
    observation_size: int, action_size: int, sizes: EncoderSizes, architecture: Architecture
) -> Encoder:
    """zs(s), zsa(zs, a) and the linear head that predicts termination, next latent and reward."""
    module = _Encoder(sizes, architecture)

    def init(key: jax.Array) -> Params:
        return module.init(key, jnp.zeros(observation_size), jnp.zeros(action_size))["params"]

    def call(method: Callable) -> Callable:
        return lambda params, *inputs: module.apply({"params": params}, *inputs, method=method)

    return Encoder(
        init, call(_Encoder.embed_observation), call(_Encoder.embed_action), call(_Encoder.predict)
    )


def make_critic(zsa_size: int, architecture: Architecture) -> Critic:
    """Two independent value heads, each `depth` hidden layers and a scalar output."""
    module = _Critic(architecture)
    return Critic(
        lambda key: module.init(key, jnp.zeros(zsa_size))["params"],
        lambda params, zsa: module.apply({"params": params}, zsa),
    )


def make_actor(zs_size: int, action_size: int, architecture: Architecture) -> Actor:
    """The policy network; its output is the action before the tanh."""
    module = MLP(action_size, architecture)
    return Actor(
        lambda key: module.init(key, jnp.zeros(zs_size))["params"],
        lambda params, zs: module.apply({"params": params}, zs),
    )
