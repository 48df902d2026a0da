"""The oldest starts of a buffer: looking at them, and letting go of some (RLx2's dynamic capacity).

What is let go of stays in its slot until it is overwritten, but is never sampled again; there is no
other state, so that a checkpoint has it in the priorities (docs/specs/rlx2.md §3).
"""

import dataclasses

import jax
import jax.numpy as jnp

from mst_jax.replay import sum_tree
from mst_jax.replay.ring import Buffer

PART = 10  # a tenth of all starts goes at a time


def oldest(buffer: Buffer, count: int) -> tuple[jax.Array, jax.Array]:
    """The oldest starts that can be sampled, and how many there are.

    Args:
        buffer: of S seeds.
        count: C, of each seed.

    Returns:
        int32[S, C] slots, the oldest first, of all environments of a seed step by step; where there
        are fewer, the newest is repeated. int32[S], starts that can be sampled.
    """

    def of_seed(buffer: Buffer) -> tuple[jax.Array, jax.Array]:
        slots, rank = _by_age(buffer)
        wanted = jnp.minimum(jnp.arange(1, count + 1), rank[-1])
        return slots[jnp.searchsorted(rank, wanted)], rank[-1]

    return jax.vmap(of_seed)(buffer)


def without_oldest(buffer: Buffer, due: jax.Array) -> Buffer:
    """The buffer without the oldest tenth of its starts, where told.

    Args:
        buffer: of S seeds.
        due: bool[S].
    """

    def tree_of(buffer: Buffer, due: jax.Array) -> sum_tree.Tree:
        slots, rank = _by_age(buffer)
        gone = due & (rank <= rank[-1] // PART)
        leaves = buffer.tree[0]
        leaves = leaves.at[slots].set(jnp.where(gone, 0.0, leaves[slots]), unique_indices=True)
        return tuple(map(jnp.asarray, sum_tree.from_leaves(leaves)))

    return dataclasses.replace(buffer, tree=jax.vmap(tree_of)(buffer, due))


def _by_age(buffer: Buffer) -> tuple[jax.Array, jax.Array]:
    """Slots of one seed from the oldest, int32[N], and how many starts there are up to each."""
    layout = buffer.layout
    first = layout.ring * jnp.arange(layout.environments)[:, None]
    # The slot at the cursor is the next to be overwritten; those never written are no starts.
    slots = first + (buffer.cursor[:, None] + jnp.arange(layout.ring)) % layout.ring
    slots = slots.T.ravel()
    return slots, jnp.cumsum(buffer.tree[0][slots] > 0, dtype=jnp.int32)
