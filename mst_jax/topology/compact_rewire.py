"""Rewiring kernels in compact storage: the ordinary rewire, of one entry for every input and tile.

A tile's weights from one input live and die together, so a kernel ``[I, O]`` is rewired as a leaf
``[I, O / C]`` with as many entries in every column. What the whole kernel's gradient would say is
asked of the loss, at rewires only: first how large it is for every input and tile, then what it is
for the inputs that were grown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.topology import scores
from mst_jax.topology.compact import Shared, SharedMask, active_units, is_shared
from mst_jax.topology.count_tables import Table, Totals
from mst_jax.topology.mask_tree import PyTree, named_leaves, path_of
from mst_jax.topology.planning import Group, LeafPlan
from mst_jax.topology.scores import Leaf
from mst_jax.topology.structures import fan_in

Loss = Callable[[PyTree], jax.Array]  # of parameters like those given to ``update``


def as_units(group: Group) -> Group:
    """The group with its kernels in compact storage as leaves of one entry an input and tile."""

    def one(entry: LeafPlan) -> LeafPlan:
        if not entry.compact:
            return entry
        inputs, outputs = entry.shape
        regime = replace(entry.regime, storage="masked", structure=fan_in())
        return replace(entry, regime=regime, shape=(inputs, outputs // entry.columns))

    return replace(group, entries=tuple(map(one, group.entries)))


def counts_of_units(group: Group, counts: Table | Totals) -> Table:
    """The group's counts in such entries."""
    assert isinstance(counts, Table)  # leaves that share their counts have no structure
    own = np.array([entry.columns if entry.compact else 1 for entry in group.entries], np.int32)
    return Table(counts.keep // own, counts.target // own)


def leaves_of_units(
    entries: Sequence[LeafPlan],
    params: PyTree,
    masks: Mapping[str, SharedMask],
    keys: Mapping[str, jax.Array],
    loss: Loss | None,
) -> dict[str, Leaf]:
    """What scores look at of kernels in compact storage: path -> leaf of shape ``[I, O / C]``.

    Weights and gradients are means of sizes over a tile's columns, as `Structure.split` makes them
    of a whole kernel's scores.

    Args:
        entries: the kernels.
        params: parameter tree.
        masks: path -> what stands for the mask before.
        keys: path -> typed key.
        loss: of the parameters.
    """
    kernels = named_leaves(params, is_leaf=is_shared)
    units = {e.path: active_units(masks[e.path].index, e.shape[0]) for e in entries}
    blank = {path: jnp.zeros(unit.shape, jnp.float32) for path, unit in units.items()}
    asked = {e.path for e in entries if e.regime.grow_score is scores.gradient}
    probes = {path: probe for path, probe in blank.items() if path in asked}
    slopes = blank | _gradients(loss, params, probes)
    return {
        path: Leaf(_sizes(kernels[path]), slopes[path], None, unit, keys[path])
        for path, unit in units.items()
    }


def grown(mask: SharedMask, units: jax.Array) -> SharedMask:
    """What stands for a mask after a rewire: what is grown takes the places of what is dropped.

    Args:
        mask: before.
        units: bool ``[I, O / C]``, afterwards; as many inputs for every tile.
    """

    def one(index: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
        (found,) = jnp.nonzero(new & ~old, size=len(index))
        free = ~new[index]
        return jnp.where(free, found[jnp.cumsum(free) - 1], index).astype(index.dtype)

    before = active_units(mask.index, mask.inputs)
    return replace(mask, index=jax.vmap(one)(mask.index, before.T, units.T))


def gradients_at(
    loss: Loss | None, params: PyTree, masks: Mapping[str, SharedMask]
) -> dict[str, jax.Array]:
    """Gradient of a loss at other weights of kernels in compact storage: path -> like the values.

    Args:
        loss: of the parameters.
        params: parameter tree.
        masks: path -> which weights.
    """
    kernels = named_leaves(params, is_leaf=is_shared)
    probes = {
        path: Shared(jnp.zeros_like(kernels[path].values), mask.index, mask.inputs)
        for path, mask in masks.items()
    }
    return _gradients(loss, params, probes)


def _gradients(
    loss: Loss | None, params: PyTree, probes: Mapping[str, jax.Array | Shared]
) -> dict[str, jax.Array]:
    """Gradient of a loss by probes of its parameters, of a `Shared` by its values."""
    if not probes:
        return {}
    assert loss is not None  # `update` has asked for it

    def with_probes(values: Mapping[str, jax.Array]) -> jax.Array:
        def one(path: tuple, param: PyTree) -> PyTree:
            probe, value = probes.get(path_of(path)), values.get(path_of(path))
            if isinstance(probe, Shared):
                return replace(param, probe=replace(probe, values=value))
            return param if probe is None else replace(param, probe=value)

        return loss(jax.tree_util.tree_map_with_path(one, params, is_leaf=is_shared))

    values = {path: p.values if isinstance(p, Shared) else p for path, p in probes.items()}
    return jax.grad(with_probes)(values)


def _sizes(kernel: Shared) -> jax.Array:
    """Mean size of a tile's weights from every input ``[I, O / C]``, float32 or wider."""
    wide = jnp.promote_types(kernel.values.dtype, jnp.float32)
    means = jnp.mean(jnp.abs(kernel.values), axis=1, dtype=wide)

    def one(index: jax.Array, means: jax.Array) -> jax.Array:
        return jnp.zeros(kernel.inputs, wide).at[index].set(means)

    return jax.vmap(one)(kernel.index, means).T
