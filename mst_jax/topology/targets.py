"""Target networks of sparse networks.

A hard copy takes the mask along with the weights. A Polyak average does not: after a rewire it
would still carry the dropped weights, so that its topology is the union of all past ones.
"""

import jax
import jax.numpy as jnp
import optax

from mst_jax.topology.compact import is_shared, values_of, with_values
from mst_jax.topology.mask_tree import (
    PyTree,
    apply,
    expand,
    follow,
    inside,
    is_sentinel,
    require_same_leaves,
)
from mst_jax.topology.selection import top_k

POLICIES = ("same_mask", "as_is", "re_prune")


def update_target(
    target: PyTree,
    params: PyTree,
    masks: PyTree,
    tau: float | jax.Array,
    *,
    policy: str = "same_mask",
) -> PyTree:
    """One step of a target network, ``(1 - tau) target + tau params``, then its topology.

    Args:
        target: target parameters, one seed.
        params: online parameters.
        masks: their mask tree.
        tau: step size; 1 copies.
        policy: ``same_mask`` follows the online mask (RLx2, Tan et al. 2023), ``as_is`` keeps the
            average, ``re_prune`` keeps as many of its largest weights as the online leaf has
            (DS-TD3, Sokar et al. 2022). Kernels in compact storage take ``same_mask`` only.

    Returns:
        New target parameters.

    Raises:
        ValueError: unknown policy, one that compact storage does not take, or target or masks are
            not those of these parameters.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {POLICIES}, got {policy!r}")
    require_same_leaves("targets", target, params)
    if policy == "same_mask":
        online, old = values_of(params), values_of(follow(target, expand(masks, params)))
        moved = optax.incremental_update(online, old, tau)
        return apply(masks, with_values(params, moved))
    if any(is_shared(leaf) for leaf in jax.tree.leaves(params, is_leaf=is_shared)):
        raise ValueError(
            f"policy={policy!r} averages other topologies than the online one, which compact "
            f"storage has no place for: use same_mask"
        )
    moved = optax.incremental_update(params, target, tau)
    if policy == "as_is":
        return moved
    return jax.tree.map(_pruned, moved, expand(masks, moved))


def _pruned(weight: jax.Array, mask: PyTree) -> jax.Array:
    if is_sentinel(mask):
        return weight
    everything = jnp.ones_like(weight, bool)
    kept = top_k(jnp.abs(weight), jnp.sum(mask, dtype=jnp.int32), everything)
    return inside(kept, weight)
