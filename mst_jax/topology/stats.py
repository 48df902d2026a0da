"""Statistics of a topology, all computed on device from masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mst_jax.topology.compact import densified
from mst_jax.topology.mask_tree import named_leaves
from mst_jax.topology.state import states


class LeafStatistics(NamedTuple):
    """One masked leaf, float32 scalars in [0, 1] unless said otherwise.

    Attributes:
        density: share of active weights.
        dead_inputs: share of inputs (second-last axis) without an active weight.
        dead_outputs: share of outputs (last axis) without an active weight.
        churn: share of positions changed by the last rewire; 0 if not tracked.
        churn_from_start: share of positions changed since the first mask; 0 if not tracked.
        explored: share of positions ever active; the density if not tracked.
    """

    density: jax.Array
    dead_inputs: jax.Array
    dead_outputs: jax.Array
    churn: jax.Array
    churn_from_start: jax.Array
    explored: jax.Array


def statistics(opt_state: optax.OptState) -> dict[str, LeafStatistics]:
    """Statistics of every masked leaf; for many seeds, ``vmap`` it.

    ``churn``, ``churn_from_start`` and ``explored`` need ``sparse(..., track=True)``.

    Args:
        opt_state: optimizer state of one seed.

    Returns:
        path -> statistics.
    """
    found: dict[str, LeafStatistics] = {}
    for state in states(opt_state):
        for path, mask in named_leaves(densified(state.masks)).items():
            past = state.history.get(path)
            outputs, inputs = degrees(mask)
            found[path] = LeafStatistics(
                density=_share(mask),
                dead_inputs=_share(inputs == 0),
                dead_outputs=_share(outputs == 0),
                churn=_share(mask != past.previous) if past else jnp.zeros(()),
                churn_from_start=_share(mask != past.initial) if past else jnp.zeros(()),
                explored=_share(past.explored if past else mask),
            )
    return found


def degrees(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """In-degree of every output and out-degree of every input of a leaf.

    Args:
        mask: bool ``[..., inputs, outputs]``; a vector counts as one input.

    Returns:
        int32 ``[outputs]``, active inputs of each output, and int32 ``[inputs]``, active outputs of
        each input; kernel axes are summed over.
    """
    mask = mask if mask.ndim > 1 else mask[None]
    *kernel, inputs, outputs = range(mask.ndim)
    return (
        jnp.sum(mask, axis=(*kernel, inputs), dtype=jnp.int32),
        jnp.sum(mask, axis=(*kernel, outputs), dtype=jnp.int32),
    )


def degree_histogram(degree: jax.Array, bins: int, largest: int) -> jax.Array:
    """Histogram of degrees over ``[0, largest]`` in bins of equal width.

    Args:
        degree: int32 ``[neurons]`` from `degrees`.
        bins: number of bins.
        largest: largest possible degree (the number of inputs, or of outputs).

    Returns:
        int32 ``[bins]``; their sum is the number of neurons.
    """
    place = jnp.clip(degree * bins // (largest + 1), 0, bins - 1)
    return jnp.sum(place[:, None] == jnp.arange(bins), axis=0, dtype=jnp.int32)


def _share(flags: jax.Array) -> jax.Array:
    return jnp.mean(flags, dtype=jnp.float32)
