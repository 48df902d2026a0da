"""Gradients of a module's loss on a batch: their norms, and how samples' gradients interfere."""

from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import topology
from mst_jax.agents import Probe


def whole(probe: Probe) -> Probe:
    """The probe with whole kernels and boolean masks, whatever their storage is."""
    params, masks = topology.densified((probe.params, probe.masks))
    return probe._replace(params=params, masks=masks)


def mean_gradient(probe: Probe) -> Any:
    """Dense gradient of the mean loss over the probe's samples, shaped like the parameters."""

    def mean_loss(params: Any) -> jax.Array:
        return jnp.mean(jax.vmap(probe.loss, (None, 0))(params, probe.samples))

    return jax.grad(mean_loss)(probe.params)


def sample_gradients(probe: Probe, active_only: bool = True) -> jax.Array:
    """One flat gradient per sample.

    Args:
        probe: a module on a batch of B.
        active_only: set entries outside the mask to zero.

    Returns:
        float32 (B, parameters), parameters in tree order.
    """

    def flat(sample: Any) -> jax.Array:
        grads = jax.grad(probe.loss)(probe.params, sample)
        if active_only:
            grads = topology.apply(probe.masks, grads)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])

    return jax.vmap(flat)(probe.samples)


def gradient_covariance(gradients: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """Cosines of samples' gradients (docs/specs/network-sparsity.md §4 "Gradient interference").

    Args:
        gradients: (B, parameters).
        epsilon: added to the product of norms.

    Returns:
        float32 (B, B); the diagonal is 1, or 0 for a sample without gradient.
    """
    norms = jnp.linalg.norm(gradients, axis=-1)
    return (gradients @ gradients.T) / (norms[:, None] * norms[None, :] + epsilon)


def interference(covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cosine of different samples, and the share of such pairs that point apart.

    Args:
        covariance: (B, B) cosines.

    Returns:
        Two float32 scalars, in [-1, 1] and [0, 1]; zeros for a batch of one.
    """
    size = covariance.shape[0]
    pairs = max(size * (size - 1), 1)
    off_diagonal = ~jnp.eye(size, dtype=bool)
    mean = jnp.sum(jnp.where(off_diagonal, covariance, 0.0)) / pairs
    return mean, jnp.sum((covariance < 0) & off_diagonal) / pairs
