"""How many dimensions a feature matrix (batch, features) fills, from its singular values."""

import jax
import jax.numpy as jnp


@jax.custom_batching.sequential_vmap
def singular_values(features: jax.Array) -> jax.Array:
    """Of (B, m): (min(B, m),), largest first; under `vmap` of one matrix after the other.

    A CPU would share a batch of decompositions among threads that may all be waiting for theirs,
    for ever (`mst_jax.networks.orthogonal`).
    """
    return jnp.linalg.svd(features, compute_uv=False)


def srank(features: jax.Array, delta: float = 0.01) -> jax.Array:
    """Stable rank: the smallest k whose k largest singular values sum to (1 - delta) of all.

    Kumar et al., 2021 (arXiv 2010.14498); docs/specs/network-sparsity.md §4. At most B.

    Args:
        features: (B, m).
        delta: share of the sum that may be missing.

    Returns:
        float32 scalar in [0, min(B, m)]; 0 for a zero matrix, NaN for one that is not finite.
    """
    values = singular_values(features)
    total = jnp.sum(values)
    missing = jnp.sum(jnp.cumsum(values) < (1.0 - delta) * total)
    rank = jnp.where(total > 0, missing + 1.0, 0.0)
    return jnp.where(jnp.isfinite(total), rank, jnp.nan)


def effective_rank(features: jax.Array) -> jax.Array:
    """Exponential of the entropy of the normalised singular values (Roy & Vetterli, 2007).

    Args:
        features: (B, m).

    Returns:
        float32 scalar in [0, min(B, m)]; 0 for a zero matrix, NaN for one that is not finite.
    """
    values = singular_values(features)
    total = jnp.sum(values)
    share = values / jnp.where(total > 0, total, 1.0)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0))
    rank = jnp.where(total > 0, jnp.exp(entropy), 0.0)
    return jnp.where(jnp.isfinite(total), rank, jnp.nan)
