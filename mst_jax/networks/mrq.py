"""MR.Q's encoder as pure functions (docs/specs/mst-and-mrq.md §6.2; Fujimoto et al., 2025)."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks.activity import Activity, activity_of
from mst_jax.networks.architecture import Activated, Architecture, Params
from mst_jax.networks.build import network, network_operations
from mst_jax.networks.mlp import dense, xavier_uniform_relu
from mst_jax.networks.operations import Operation
from mst_jax.networks.pixel import Convolutions, convolved, places


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
    positions: Mapping[str, int] | None = None  # kernel -> its places on a picture


class _PictureLatent(nn.Module):
    """Convolutions with activations alone, and a linear layer as the architecture has it."""

    size: int
    architecture: Architecture
    convolutions: Convolutions

    @nn.compact
    def __call__(self, picture: jax.Array) -> jax.Array:
        plain = Architecture(0, 0, self.architecture.activation, norm=False)
        x = convolved(picture, self.convolutions, plain, xavier_uniform_relu)
        number = self.convolutions.depth + 1
        x = dense(self.size, f"layer_{number}")(x)
        return Activated(self.architecture, name=f"active_{number}")(x)


class _Encoder(nn.Module):
    sizes: EncoderSizes
    architecture: Architecture
    convolutions: Convolutions | None = None  # of pictures

    def setup(self) -> None:
        if self.convolutions is None:
            self.zs = network(self.sizes.zs, self.architecture, activate_output=True)
        else:
            self.zs = _PictureLatent(self.sizes.zs, self.architecture, self.convolutions)
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
    observation = jnp.zeros(observation_size)
    return _functions(_Encoder(sizes, architecture), observation, action_size)


def make_picture_latents(
    shape: tuple[int, int, int],
    action_size: int,
    sizes: EncoderSizes,
    architecture: Architecture,
    convolutions: Convolutions,
) -> Encoder:
    """As `make_encoder`, with a state latent of pictures (docs/specs/mrq-pixels-discrete.md §1).

    Args:
        shape: of a picture, (H, W, C), all its frames in the last axis.
        action_size: numbers that an action is taken as.
        sizes: widths of the latents.
        architecture: of all that is no convolution; the state latent is one layer on them.
        convolutions: of the state latent.

    Raises:
        ValueError: the picture is too small for the convolutions.
    """
    positions = places(convolutions.sides(shape, "pictures"))
    module = _Encoder(sizes, architecture, convolutions)
    encoder = _functions(module, jnp.zeros(shape, jnp.uint8), action_size)
    return encoder._replace(positions={f"zs/{path}": n for path, n in positions.items()})


def _functions(module: _Encoder, observation: jax.Array, action_size: int) -> Encoder:
    def init(key: jax.Array) -> Params:
        return module.init(key, observation, jnp.zeros(action_size))["params"]

    def call(method: Callable) -> Callable:
        return lambda params, *inputs: module.apply({"params": params}, *inputs, method=method)

    def operations(params: Params) -> list[Operation]:
        return network_operations(params["zs"], module.architecture, activate_output=True)

    return Encoder(
        init,
        call(_Encoder.embed_observation),
        call(_Encoder.embed_action),
        call(_Encoder.predict),
        activity_of(module),
        operations,
    )
