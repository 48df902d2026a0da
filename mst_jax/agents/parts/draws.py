"""Standard normal and Gumbel numbers: the one place where agents draw them.

Noise of exploration, of target policies and of stochastic policies all comes from here, so another
source (the recorded noise of a reference program) can stand in for a whole update.
"""

from collections.abc import Sequence

import jax


def normal(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Independent standard normal numbers, float32 of this shape."""
    return jax.random.normal(key, shape)


def gumbel(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Independent standard Gumbel numbers, float32 of this shape."""
    return jax.random.gumbel(key, shape)
