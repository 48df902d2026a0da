"""Losses, targets and weights of DER on batched arrays (docs/specs/der.md §1.3, §1.4).

B samples, N atoms.
"""

import chex
import jax
import jax.numpy as jnp

from mst_jax.agents.parts.losses import two_hot

FLOOR = 1e-10  # of what a root is taken of


def projected(places: jax.Array, probabilities: jax.Array, support: jax.Array) -> jax.Array:
    """A distribution over other places, brought onto the support.

    The probability at a place is shared between the two atoms around it, the nearer one having the
    more; what lies outside goes to the first or the last.

    Args:
        places: (B, N), returns.
        probabilities: (B, N), of each place.
        support: (N,), returns of the atoms, ascending.

    Returns:
        Probabilities of the atoms (B, N).
    """
    chex.assert_rank([places, probabilities, support], [2, 2, 1])
    chex.assert_equal_shape([places, probabilities])
    return jnp.einsum("bj,bji->bi", probabilities, two_hot(places, support))


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Of predicted logits (B, N) with target probabilities (B, N): (B,)."""
    chex.assert_rank([logits, target], 2)
    chex.assert_equal_shape([logits, target])
    return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)


def importance_weights(probability: jax.Array) -> jax.Array:
    """Weights 1 / sqrt(P), divided by the largest of the batch; (B,) to (B,)."""
    chex.assert_rank(probability, 1)
    weights = 1.0 / jnp.sqrt(probability + FLOOR)
    return weights / jnp.max(weights)


def priorities(losses: jax.Array) -> jax.Array:
    """Roots of cross-entropies, or of squared errors; (B,) to (B,)."""
    chex.assert_rank(losses, 1)
    return jnp.sqrt(losses + FLOOR)
