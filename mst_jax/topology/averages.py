"""Running averages of the dense gradient, for the scores that read them."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mst_jax.topology.mask_tree import PyTree, named_leaves
from mst_jax.topology.planning import Plan
from mst_jax.topology.state import SparseState, Undrawn


def zeros(
    leaves: Sequence[Undrawn], weights: Mapping[str, jax.Array], decay: str
) -> dict[str, jax.Array]:
    """Averages to begin with, path -> float32, of the leaves whose regime has a decay so named.

    They are sharded as the weights are.
    """
    asked = [u for u in leaves if getattr(u.regime, decay) is not None]
    return {u.path: jnp.zeros_like(weights[u.path], jnp.float32) for u in asked}


def averaged(plan: Plan, state: SparseState, gradients: PyTree) -> SparseState:
    """The state after one more gradient; entries that are not finite are left out of averages.

    Args:
        plan: the plan, whose regimes have the decays.
        state: the state.
        gradients: dense gradients.

    Returns:
        The state with new averages.
    """
    if not state.averages and not state.squares:
        return state
    named, entries = named_leaves(gradients), plan.entries()

    def one(average: jax.Array, decay: float, new: jax.Array) -> jax.Array:
        moved = decay * average + (1.0 - decay) * new
        return jnp.where(jnp.isfinite(new), moved, average)

    averages, squares = {}, {}
    for path, average in state.averages.items():
        gradient = named[path].astype(jnp.float32)
        averages[path] = one(average, entries[path][2].regime.average, gradient)
    for path, average in state.squares.items():
        square = jnp.square(named[path].astype(jnp.float32))
        squares[path] = one(average, entries[path][2].regime.average_square, square)
    return state._replace(averages=averages, squares=squares)
