"""Networks as pairs of pure functions; the only package that imports flax.linen."""

from mst_jax.networks.mlp import ACTIVATIONS, MLP, RESIDUALS, Architecture, Residual, layer_norm
from mst_jax.networks.mrq import (
    Actor,
    Critic,
    Encoder,
    EncoderSizes,
    Params,
    Prediction,
    make_actor,
    make_critic,
    make_encoder,
)

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "RESIDUALS",
    "Actor",
    "Architecture",
    "Critic",
    "Encoder",
    "EncoderSizes",
    "Params",
    "Prediction",
    "Residual",
    "layer_norm",
    "make_actor",
    "make_critic",
    "make_encoder",
]
