"""Networks as pairs of pure functions; the only package that imports flax.linen."""

from mst_jax.networks.activity import Activity, strengths
from mst_jax.networks.actor_critic import (
    Actor,
    Critic,
    GaussianActor,
    make_actor,
    make_critic,
    make_gaussian_actor,
)
from mst_jax.networks.architecture import (
    ACTIVATIONS,
    RESIDUALS,
    Architecture,
    Params,
    Residual,
    layer_norm,
)
from mst_jax.networks.atari import Layer, make_impala, make_nature
from mst_jax.networks.build import network
from mst_jax.networks.mrq import (
    Encoder,
    EncoderSizes,
    Prediction,
    make_encoder,
    make_picture_latents,
)
from mst_jax.networks.noisy import ActionValues, Noise, make_action_values
from mst_jax.networks.operations import Operation
from mst_jax.networks.pixel import (
    PADDINGS,
    Convolutions,
    PixelActor,
    PixelCritic,
    PixelEncoder,
    make_pixel_actor,
    make_pixel_critic,
    make_pixel_encoder,
)
from mst_jax.networks.products import PRECISIONS, in_precision
from mst_jax.networks.readers import readers
from mst_jax.networks.shared import shared_dense
from mst_jax.networks.sparse_init import sparse_init

__all__ = [
    "ACTIVATIONS",
    "PADDINGS",
    "PRECISIONS",
    "RESIDUALS",
    "ActionValues",
    "Activity",
    "Actor",
    "Architecture",
    "Convolutions",
    "Critic",
    "Encoder",
    "EncoderSizes",
    "GaussianActor",
    "Layer",
    "Noise",
    "Operation",
    "Params",
    "PixelActor",
    "PixelCritic",
    "PixelEncoder",
    "Prediction",
    "Residual",
    "in_precision",
    "layer_norm",
    "make_action_values",
    "make_actor",
    "make_critic",
    "make_encoder",
    "make_gaussian_actor",
    "make_impala",
    "make_nature",
    "make_picture_latents",
    "make_pixel_actor",
    "make_pixel_critic",
    "make_pixel_encoder",
    "network",
    "readers",
    "shared_dense",
    "sparse_init",
    "strengths",
]
