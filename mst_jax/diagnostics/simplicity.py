"""The simplicity-bias score of a network at initialisation (Lee et al., 2025, SimBa)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def complexity(outputs: jax.Array) -> jax.Array:
    """Mean spatial frequency of a function on a square grid, weighted by Fourier magnitude.

    c(f) = sum_k |F(k)| |k| / sum_k |F(k)| with radial frequency as a share of its largest value and
    the constant part left out. The normalisation sets the scale; this one gives the published 6.3
    for SimBa's default actor (docs/specs/network-sparsity.md §4).

    Args:
        outputs: (n, n), the function on the grid.

    Returns:
        float32 scalar in [0, 1]; NaN for a constant function.
    """
    axis = jnp.fft.fftfreq(outputs.shape[0])
    radius = jnp.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    magnitude = jnp.abs(jnp.fft.fft2(outputs)).at[0, 0].set(0.0)
    return jnp.sum(magnitude * radius / jnp.max(radius)) / jnp.sum(magnitude)


def simplicity_score(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    *,
    inits: int = 100,
    grid: int = 300,
    limit: float = 100.0,
) -> jax.Array:
    """Mean of 1 / complexity over random initialisations; larger is simpler.

    Args:
        function: (key, points (N, 2)) -> values (N,) of a network drawn with that key.
        key: typed key.
        inits: number of networks.
        grid: points along each side.
        limit: the grid covers [-limit, limit]^2.

    Returns:
        float32 scalar.
    """
    axis = jnp.linspace(-limit, limit, grid)
    points = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)

    def score(own: jax.Array) -> jax.Array:
        return 1.0 / complexity(function(own, points).reshape(grid, grid))

    return jnp.mean(jax.lax.map(score, jax.random.split(key, inits)))
