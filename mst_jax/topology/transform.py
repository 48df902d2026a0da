"""The optax wrapper: sparse training around any optimizer, on any training loop.

``update`` takes the *dense* gradient and the module's clock. A conditional on that clock returns
the new masks and nothing else; everything that follows from them is element-wise ``where`` that
fuses with the optimizer's arithmetic.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mst_jax.topology import averages as averages_lib
from mst_jax.topology import compact, mask_tree, state_rewire
from mst_jax.topology import moments as moments_lib
from mst_jax.topology import rewire as rewire_lib
from mst_jax.topology import state as state_lib
from mst_jax.topology.activity import Activity
from mst_jax.topology.compact_rewire import Loss
from mst_jax.topology.count_tables import Table, Totals
from mst_jax.topology.mask_tree import DenseLeaf, PyTree, is_sentinel, merge, named_leaves
from mst_jax.topology.moments import MomentPolicy
from mst_jax.topology.planning import Group, LeafPlan, Plan
from mst_jax.topology.state import LeafHistory, SparseState, Undrawn, is_undrawn

_DRAW, _GROW = 0, 1  # purposes of the run's key


def sparse(
    inner: optax.GradientTransformation,
    plan: Plan,
    *,
    moments: str | MomentPolicy = "zero",
    track: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that it trains the plan's leaves sparsely.

    The last transform that touches updates must be this one: put clipping, ``MultiSteps`` and
    ``apply_if_finite`` inside; ``chain`` (as its last member), ``masked``, ``partition`` and
    ``inject_hyperparams`` may surround it. Create the state with `init`, and apply updates
    with `apply_updates`.

    ``update(grads, state, params, step=step)`` needs the parameters, and, if the topology changes,
    the module's optimizer step: an int32 scalar that is *not* batched by ``vmap``. Its gradient is
    the dense one, which is what ``jax.grad`` gives when the forward pass does not multiply by a
    mask. A rewire step also performs the weight step. Other keyword arguments go to the optimizer.

    A regime that looks at neurons (``plan.reads_activity``) also needs ``activity=``: a mapping
    from the path of a kernel to the mean absolute activation of its outputs, ``[outputs]``, on the
    batch at hand; or a function without arguments that returns it, which is called under the
    conditional, so that steps without a rewire do not pay for a forward pass.

    ``growth=`` is a tree like the gradients that grow scores and averages read in their place, for
    an optimizer that is not given the gradient of a loss (eligibility traces).

    A plan that moves kernels in compact storage (``plan.reads_loss``) also needs ``loss=``: the
    function of the parameters whose gradient is given, which is called under the conditional. The
    gradient is that of `value_and_grad`, updates are shaped alike, and `apply_updates` is the only
    way to apply them.

    Args:
        inner: any optax optimizer. Do not grow weights under ``acprop``, or under ``adopt`` without
            clipping: they divide by the second moment of the step before, which a new weight has
            not, and protect the first step of all weights together only.
        plan: from `mst_jax.topology.plan`.
        moments: slots of newly grown weights: ``zero`` makes them those of a fresh optimizer (RigL,
            Evci et al. 2020), ``keep`` carries what is left from before, ``bias_corrected`` (see
            `bias_corrected`) also restarts Adam's bias correction.
        track: keep the first and the previous mask and every position ever active, three
            bytes per weight, for `mst_jax.topology.statistics`.

    Returns:
        An optax transformation with state `SparseState`.

    Raises:
        TypeError: an optimizer or a plan that is none.
        ValueError: unknown moment policy, or one that compact storage does not take; in
            ``update``, masks not drawn, parameters, step, activity or loss missing, gradients or
            parameters of another tree, or a step that is not one integer.
    """
    if not all(callable(getattr(inner, name, None)) for name in ("init", "update")):
        raise TypeError(
            f"sparse() wraps an optimizer such as optax.adam(1e-3), got a {type(inner).__name__}"
        )
    if not isinstance(plan, Plan):
        raise TypeError(
            f"sparse() needs the plan that topology.plan(params, rules) makes, got a "
            f"{type(plan).__name__}"
        )
    policy = moments_lib.named(moments)
    if plan.reads_loss and (policy.name != "zero" or track):
        raise ValueError(
            "compact storage that moves keeps nothing of weights that are dropped: leave out "
            "moments= and track=, or choose masked storage"
        )
    inner = optax.with_extra_args_support(inner)
    moving = [(g, group) for g, group in enumerate(plan.groups) if _moving(group)]

    def init_fn(params: PyTree) -> SparseState:
        params = compact.values_of(params)
        masks = _undrawn(plan, params)
        leaves = [u for u in jax.tree.leaves(masks, is_leaf=is_undrawn) if is_undrawn(u)]
        weights = named_leaves(params, is_leaf=is_sentinel)
        changing = {
            u.path: weights[u.path] for u in leaves if moving and plan.groups[u.group].timing
        }
        return SparseState(
            inner=inner.init(params),
            masks=masks,
            tables=jax.tree.map(jnp.asarray, plan.tables),
            key=jax.random.key(0) if moving else None,
            averages=averages_lib.zeros(leaves, weights, "average"),
            squares=averages_lib.zeros(leaves, weights, "average_square"),
            ages=moments_lib.young(changing) if policy.name == "bias_corrected" else None,
            history={path: _no_history(leaf) for path, leaf in changing.items() if track},
        )

    def update_fn(
        updates: PyTree,
        state: SparseState,
        params: PyTree | None = None,
        *,
        step: jax.Array | None = None,
        activity: Activity | None = None,
        growth: PyTree | None = None,
        loss: Loss | None = None,
        **extra: PyTree,
    ) -> tuple[PyTree, SparseState]:
        if step is not None:
            _require_clock(step)
        if not plan.groups:
            updates, inner_state = inner.update(updates, state.inner, params, **extra)
            return updates, state._replace(inner=inner_state)
        if params is None:
            raise ValueError(
                "update needs the parameters: tx.update(grads, state, params, step=step)"
            )
        state_lib.require_drawn(state)
        weights = compact.values_of(params)
        _require_plans(plan, weights)
        mask_tree.require_same_leaves("gradients", updates, weights)
        seen = updates
        if growth is not None:
            mask_tree.require_same_leaves("growth", growth, weights)
            seen = growth
        if plan.reads_loss and loss is None:
            raise ValueError(
                "this plan moves kernels in compact storage: tx.update(..., step=step, loss=loss), "
                "the function of the parameters whose gradient is given"
            )
        state = averages_lib.averaged(plan, state, seen)
        for g, group in moving:
            clock = jnp.asarray(_require_clock(step), jnp.int32)
            state, slopes = state_rewire.rewired(
                group, g, state, seen, params, clock, activity, loss
            )
            updates = state_rewire.replaced(updates, slopes)
        masks = state.masks
        stay = state_rewire.staying(params, masks) if plan.reads_loss else masks
        now = mask_tree.apply(stay, weights) if moving else weights
        gradients = mask_tree.apply(masks, updates)
        slots = (
            moments_lib.confined(inner, policy, state.inner, now, stay) if moving else state.inner
        )
        updates, inner_state = inner.update(gradients, slots, now, **extra)
        if state.ages is not None:
            state = state._replace(ages=moments_lib.aged(state.ages, masks))
            updates = moments_lib.rescaled(policy, state.ages, updates)
        # Outside the mask the update is -p, so that applying it leaves exactly zero.
        updates = jax.tree.map(_returning, weights, updates, masks)
        return updates, state._replace(inner=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def init(
    tx: optax.GradientTransformation,
    params: PyTree,
    key: jax.Array,
    tables: tuple[Table | Totals, ...] | None = None,
) -> tuple[PyTree, optax.OptState]:
    """Draws every mask in an optimizer's state and masks the parameters.

    Works wherever `sparse` sits in ``tx``. For many seeds ``vmap`` over ``params`` and
    ``key``; for runs that differ in sparsity or drop fraction over ``tables`` too.

    Args:
        tx: optimizer that contains `sparse`.
        params: parameter tree of one seed.
        key: typed key.
        tables: counts to use instead of the plan's, one table per group of leaves.

    Returns:
        ``(params, opt_state)``, the parameters exactly zero outside their masks, or in compact
        storage.

    Raises:
        TypeError: a key that is none.
        ValueError: no `sparse` in the optimizer, parameters that are not the plan's,
            ``tables`` that do not fit it, or a wrapper outside that must be inside.
    """
    if not jnp.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"init needs a typed key such as jax.random.key(0), got a {type(key).__name__}"
        )
    named = named_leaves(params)

    def drawn(state: SparseState) -> SparseState:
        counts = state.tables if tables is None else _fitting(tables, state.tables)
        draw_key = jax.random.fold_in(key, _DRAW)

        def mask(node: PyTree) -> PyTree:
            if not is_undrawn(node):
                return node
            active = counts[node.group].target[0, node.column]
            leaf_key = rewire_lib.leaf_key(draw_key, node.path)
            drawn = rewire_lib.draw(node.regime, named[node.path], active, leaf_key)
            if node.fan_in is None:
                return drawn
            return compact.shared_mask_of(drawn, node.regime.structure.unit, node.fan_in)

        masks = jax.tree.map(mask, state.masks, is_leaf=is_undrawn)
        named_masks = named_leaves(masks)
        return state._replace(
            masks=masks,
            tables=counts,
            key=None if state.key is None else jax.random.fold_in(key, _GROW),
            # Copies, or the three would be one buffer and could not be donated.
            history={
                path: LeafHistory(*(named_masks[path].copy() for _ in range(3)))
                for path in state.history
            },
        )

    blank = tx.init(params)
    state_lib.refuse_wrappers(blank)
    found = [drawn(state) for state in state_lib.states(blank)]
    if not found:
        raise ValueError(
            "this optimizer contains no sparse(): wrap it, topology.sparse(optimizer, plan), or "
            "make a dense state with tx.init(params)"
        )
    params = _under_masks(functools.reduce(merge, [s.masks for s in found]), params)
    # The inner state is made from the masked parameters: some optimizers keep copies of them.
    rest = iter(found)
    return params, state_lib.map_states(
        lambda state: next(rest)._replace(inner=state.inner), tx.init(params)
    )


def _moving(group: Group) -> bool:
    return any(entry.drops or entry.grows for entry in group.entries)


def _returning(param: jax.Array, update: jax.Array, mask: PyTree) -> jax.Array:
    return update if is_sentinel(mask) else jnp.where(mask, update, -param)


def _require_clock(step: jax.Array | None) -> jax.Array:
    """The step; ``ValueError`` unless it is one integer."""
    kind = None if step is None else (jnp.result_type(step), jnp.shape(step))
    if kind is None or kind[1] or not jnp.issubdtype(kind[0], jnp.integer):
        got = "none" if kind is None else f"{kind[0]} of shape {kind[1]}"
        raise ValueError(
            f"update needs step=, the module's optimizer step, as one unbatched integer scalar; "
            f"got {got}"
        )
    return step


def _no_history(weight: jax.Array) -> LeafHistory:
    return LeafHistory(*(jnp.zeros_like(weight, bool) for _ in range(3)))


def _require_plans(plan: Plan, params: PyTree) -> None:
    """Raises ``ValueError`` unless these are the plan's parameters."""
    leaves = named_leaves(params, is_leaf=is_sentinel)
    entries = plan.entries()
    shapes = dict(plan.dense) | {path: entry.shape for path, (_, _, entry) in entries.items()}
    stored = {e.path: _stored_shape(plan, e) for _, _, e in entries.values() if e.compact}
    hidden = tuple(path for path, leaf in leaves.items() if is_sentinel(leaf))
    shapes = {path: s for path, s in shapes.items() if not _under(path, hidden)}
    given = {path: np.shape(leaf) for path, leaf in leaves.items() if path not in hidden}
    shapes |= {path: s for path, s in stored.items() if given.get(path) == s}
    if given != shapes:
        path = next(p for p in [*given, *shapes] if given.get(p) != shapes.get(p))
        raise ValueError(
            f"these parameters are not the plan's: {path!r} has shape {given.get(path)} here and "
            f"{shapes.get(path)} in the plan; make the plan from the tree given to the optimizer"
        )


def _undrawn(plan: Plan, params: PyTree) -> PyTree:
    """Mask tree before drawing."""
    if not jax.tree.leaves(params, is_leaf=is_sentinel):  # optax's placeholder for any parameters
        return params
    _require_plans(plan, params)
    entries = plan.entries()

    def node(path: tuple, leaf: PyTree) -> PyTree:
        name = mask_tree.path_of(path)
        if is_sentinel(leaf):
            return leaf
        if name not in entries:
            return DenseLeaf()
        group, column, entry = entries[name]
        fan_in = plan.fan_in(name) if entry.compact else None
        return Undrawn(name, entry.shape, group, column, entry.regime, fan_in)

    return jax.tree_util.tree_map_with_path(node, params, is_leaf=is_sentinel)


def _stored_shape(plan: Plan, entry: LeafPlan) -> tuple[int, ...]:
    """Of the values of a kernel in compact storage."""
    return entry.shape[-1] // entry.columns, entry.columns, plan.fan_in(entry.path)


def _under_masks(masks: PyTree, params: PyTree) -> PyTree:
    """New dense parameters in the storage of a mask tree, and zero outside it."""
    named = named_leaves(masks, is_leaf=compact.is_shared_mask)

    def one(path: tuple, param: jax.Array) -> PyTree:
        mask = named.get(mask_tree.path_of(path))
        return compact.compacted(mask, param) if compact.is_shared_mask(mask) else param

    return mask_tree.apply(masks, jax.tree_util.tree_map_with_path(one, params))


def _under(path: str, nodes: tuple[str, ...]) -> bool:
    """Whether a path is one of the nodes or below one of them."""
    return any(path == node or path.startswith(node + "/") for node in nodes)


def _fitting(
    tables: tuple[Table | Totals, ...], own: tuple[Table | Totals, ...]
) -> tuple[Table | Totals, ...]:
    shapes, wanted = jax.tree.map(jnp.shape, tables), jax.tree.map(jnp.shape, own)
    if shapes != wanted:
        raise ValueError(f"tables of shapes {shapes} do not fit a plan of shapes {wanted}")
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), tables)


def restart(
    tx: optax.GradientTransformation, params: PyTree, opt_state: optax.OptState
) -> tuple[PyTree, optax.OptState]:
    """Fresh optimizer slots for new parameters under the topology that is there.

    Masks, counts, keys and history stay, so that a schedule goes on where it was; the inner
    optimizer, gradient averages and ages begin again.

    Args:
        tx: optimizer that contains `sparse`.
        params: new parameters of one seed, unmasked.
        opt_state: the state whose topology is kept.

    Returns:
        ``(params, opt_state)``, the parameters exactly zero outside their masks.

    Raises:
        ValueError: masks not drawn, or no `SparseState` in the state or the optimizer.
    """
    params = _under_masks(state_lib.masks(opt_state), params)
    blank, kept = tx.init(params), state_lib.states(opt_state)
    if len(state_lib.states(blank)) != len(kept):
        raise ValueError("this state is not of this optimizer: it has another number of sparse()")
    kept = iter(kept)

    def resumed(blank: SparseState) -> SparseState:
        old = next(kept)
        return blank._replace(masks=old.masks, tables=old.tables, key=old.key, history=old.history)

    return params, state_lib.map_states(resumed, blank)
