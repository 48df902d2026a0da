"""Weights that are given new values from outside: their optimizer slots begin afresh."""

import jax.numpy as jnp
import optax

from mst_jax.topology import moments as moments_lib
from mst_jax.topology import state as state_lib
from mst_jax.topology.mask_tree import PyTree, named_leaves
from mst_jax.topology.state import SparseState


def renew(
    tx: optax.GradientTransformation, params: PyTree, opt_state: optax.OptState, changed: PyTree
) -> optax.OptState:
    """Fresh optimizer slots and averages where weights were replaced; all else goes on.

    Masks, counts, keys and history stay, and so does what the optimizer holds for all weights
    together, such as Adam's count. Slots are found as subtrees of the inner optimizer's state that
    look like the parameters; others, such as factored ones, stay.

    Args:
        tx: optimizer that contains `sparse`.
        params: parameters of one seed, with the new values, zero outside their masks.
        opt_state: its state before.
        changed: tree of bool like ``params``, True where a value is new.

    Returns:
        The state of the same structure.

    Raises:
        ValueError: no `SparseState` in the state, or of another optimizer.
    """
    blank, kept = state_lib.states(tx.init(params)), state_lib.states(opt_state)
    if not kept or len(blank) != len(kept):
        raise ValueError("this state is not of this optimizer: it has another number of sparse()")
    fresh, named = iter(blank), named_leaves(changed)

    def one(state: SparseState) -> SparseState:
        cleared = [
            {path: jnp.where(named[path], 0.0, average) for path, average in averages.items()}
            for averages in (state.averages, state.squares)
        ]
        return state._replace(
            inner=moments_lib.renewed(state.inner, next(fresh).inner, changed),
            averages=cleared[0],
            squares=cleared[1],
            ages=None if state.ages is None else moments_lib.reborn(state.ages, named),
        )

    return state_lib.map_states(one, opt_state)
