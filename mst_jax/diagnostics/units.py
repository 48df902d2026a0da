"""What single hidden units do on a batch; layers are {path: (B, units)}."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Layers = Mapping[str, jax.Array]


def dormant_percentage(layers: Layers, threshold: float) -> jax.Array:
    """Percent of units whose mean |output| is at most `threshold` times their layer's mean.

    Sokar et al., 2023 (arXiv 2302.12902); s_i = mean_B |h_i| / (mean over units + 1e-9), over the
    units of all layers together (docs/specs/network-sparsity.md §4). The Network Sparsity paper
    takes the outputs of linear layers, before the activation; Sokar et al. those after it.

    Args:
        layers: {path: (B, units)}.
        threshold: tau.

    Returns:
        float32 scalar in [0, 100]; 100 for a silent layer, NaN if any output is not finite.
    """
    dormant, units = jnp.zeros(()), 0
    for outputs in layers.values():
        strength = jnp.mean(jnp.abs(outputs), axis=0)
        score = strength / (jnp.mean(strength) + 1e-9)
        dormant += jnp.sum(jnp.where(jnp.isfinite(score), score <= threshold, jnp.nan))
        units += outputs.shape[-1]
    return 100.0 * dormant / max(units, 1)


def active_fraction(layers: Layers) -> jax.Array:
    """FAU: share of activations above zero, over inputs and units of all layers (§4 "FAU").

    Meant for ReLU; an ELU unit below zero still passes gradient.

    Returns:
        float32 scalar in [0, 1]; NaN if any output is not finite.
    """
    positive = sum(
        jnp.sum(jnp.where(jnp.isfinite(x), (x > 0).astype(jnp.float32), jnp.nan))
        for x in layers.values()
    )
    return jnp.asarray(positive / max(sum(x.size for x in layers.values()), 1))
