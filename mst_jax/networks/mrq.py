"""MR.Q's encoder as pure functions (docs/specs/mst-and-mrq.md §6.2; Fujimoto et al., 2025)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks.activity import Activity, activity_of
from mst_jax.networks.architecture import Architecture, Params
from mst_jax.networks.build import network, network_operations
from mst_jax.networks.mlp import dense
from mst_jax.networks.operations import Operation


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
    activity: Callable[[Params, jax.Array, jax.Array], Activity]  # observation, action
    zs_operations: Callable[[Params], list[Operation]]  # `zs` of concrete parameters


class _Encoder(nn.Module):
    sizes: EncoderSizes
    architecture: Architecture

    def setup(self) -> None:
        self.zs = network(self.sizes.zs, self.architecture, activate_output=True)
        self.za = dense(self.sizes.za, name=None)
        self.zsa = network(self.sizes.zsa, self.architecture)
        self.head = dense(1 + self.sizes.zs + self.sizes.bins, name=None)

    def embed_observation(self, observation: jax.Array) -> jax.Array:
        return self.zs(observation)

    def embed_action(self, zs: jax.Array, action: jax.Array) -> jax.Array:
        # The action layer is a single linear layer with ELU in every architecture (§2.4).
        return self.zsa(jnp.concatenate([zs, nn.elu(self.za(action))], axis=-1))

    def predict(self, zsa: jax.Array) -> Prediction:
        terminal, next_zs, logits = jnp.split(self.head(zsa), [1, 1 + self.sizes.zs], axis=-1)
        return Prediction(terminal[..., 0], next_zs, logits)

    def __call__(self, observation: jax.Array, action: jax.Array) -> Prediction:
        return self.predict(self.embed_action(self.embed_observation(observation), action))


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
        init,
        call(_Encoder.embed_observation),
        call(_Encoder.embed_action),
        call(_Encoder.predict),
        activity_of(module),
        lambda params: network_operations(params["zs"], architecture, activate_output=True),
    )
