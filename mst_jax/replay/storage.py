"""The buffer as plain NumPy arrays, and back: what a checkpoint stores.

Only slots that were ever written are kept, and of the sum tree only its leaves: a parent is a
function of them, so the round trip is bit-exact.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.replay import sum_tree
from mst_jax.replay.frames import FRAMES, RECENT, WRITTEN
from mst_jax.replay.layout import Layout
from mst_jax.replay.ring import Buffer

SCALARS = ("cursor", "filled", "steps", "max_priority", "terminal_seen")
# Slots that are copied from an accelerator at a time, or fewer where these bytes are reached.
SLICE, SLICE_BYTES = 65_536, 200_000_000


def pack(buffer: Buffer, recent: int | None = None) -> dict[str, np.ndarray]:
    """Gives the buffer to the host.

    On a CPU, where the buffer is host memory already, the slots are views of it. A view keeps its
    values: as long as one is there, a donated call works on a copy. So use them and let them go.

    Args:
        buffer: the buffer.
        recent: if given, of the observations only those of so many slots before each cursor, and of
            the one at it, are given, as `recent`: what a segment holds (`mst_jax.replay.frames`).

    Returns:
        The layout's fields (`rows`, or `observation`, `action` and `age`), `reward`, `terminated`
        and `priority` as [S*E, K, ...], K the slots written so far in the fullest ring; `cursor`,
        `filled`, `steps` and, with frames, `written` as [S*E], `max_priority` and `terminal_seen`
        as [S]; and `layout`, int64, the sizes that `unpack` checks. bfloat16 fields are given as
        their uint16 bits, because NumPy's own files cannot hold that dtype.
    """
    written = _written(np.asarray(buffer.filled), buffer.layout.ring)
    slots = _slots(buffer)
    arrays = {}
    if recent is not None:
        frames, cursor = slots.pop(FRAMES), np.asarray(buffer.cursor)
        arrays[RECENT] = _recent(frames, cursor, recent, buffer.layout)
    arrays |= {
        name: _to_host(array, written, buffer.layout).view(_host_dtype(array.dtype))
        for name, array in slots.items()
    }
    arrays |= {name: np.array(leaf).ravel() for name, leaf in _scalars(buffer).items()}
    return arrays | {"layout": np.array([*buffer.layout.numbers.values()], np.int64)}


def unpack(arrays: Mapping[str, np.ndarray], like: Buffer) -> Buffer:
    """Restores a buffer from `pack`'s arrays, bit for bit, without compiling anything.

    Args:
        arrays: what `pack` returned; the slots may be padded with zeros.
        like: a buffer of the same layout, or its shapes (`jax.eval_shape` of `create`); its values
            are not used. If its leaves are committed to devices, so are the restored ones.

    Returns:
        The buffer.

    Raises:
        ValueError: if an array is missing, or a size or dtype differs from `like`'s.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    check(arrays, like)
    # Level by level, so that the host never holds a second buffer.
    leaves = _spread(arrays["priority"], like.tree[0], like.layout)
    tree = zip(*map(sum_tree.from_leaves, leaves), strict=True)

    def restored(name: str, like_array: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
        slots = arrays[name].view(like_array.dtype)
        return _place(_spread(slots, like_array, like.layout), like_array)

    return dataclasses.replace(
        like,
        fields={name: restored(name, field) for name, field in like.fields.items()},
        reward=restored("reward", like.reward),
        terminated=restored("terminated", like.terminated),
        tree=tuple(_place(np.stack(level), of) for level, of in zip(tree, like.tree, strict=True)),
        **{
            name: _place(arrays[name].reshape(leaf.shape), leaf)
            for name, leaf in _scalars(like).items()
        },
    )


def check(arrays: Mapping[str, np.ndarray], like: Buffer) -> None:
    """Raises ValueError unless the arrays are what `pack` makes of a buffer such as `like`."""
    slots, scalars = _slots(like), _scalars(like)
    expected = {*slots, *scalars, "layout"}
    if set(arrays) != expected:
        raise ValueError(
            f"packed buffer: arrays {sorted(set(arrays) ^ expected)} are missing or unknown"
        )
    _check_sizes(arrays, like)
    for name, leaf in scalars.items():
        _check_array(name, arrays[name], (leaf.size,), leaf.dtype)
    rings, count = like.filled.size, _count(arrays, like.layout.ring)
    for name, leaf in slots.items():
        shape = rings, count, *leaf.shape[2:]
        _check_array(name, arrays[name], shape, _host_dtype(leaf.dtype))


def _check_sizes(arrays: Mapping[str, np.ndarray], like: Buffer) -> None:
    wanted = {"seeds": len(like.max_priority), **like.layout.numbers}
    sizes = len(arrays["max_priority"]), *arrays["layout"]
    if len(sizes) != len(wanted):
        raise ValueError(
            "packed buffer is of observations with other axes; "
            "restore it with the settings it was made with"
        )
    for (name, size), found in zip(wanted.items(), sizes, strict=True):
        if found != size:
            raise ValueError(
                f"packed buffer has {name} {found}, this one {size}; "
                "restore it with the settings it was made with"
            )


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if np.shape(array) != shape or array.dtype != dtype:
        raise ValueError(
            f"packed buffer: {name} is {array.dtype}{list(np.shape(array))}, "
            f"expected {np.dtype(dtype)}{list(shape)}"
        )


def _slots(buffer: Buffer) -> dict[str, jax.Array]:
    """What a buffer holds for each slot, by name."""
    return {
        **buffer.fields,
        "reward": buffer.reward,
        "terminated": buffer.terminated,
        "priority": buffer.tree[0],
    }


def _scalars(buffer: Buffer) -> dict[str, jax.Array]:
    """What a buffer holds for each ring or seed, by name."""
    names = (*SCALARS, WRITTEN) if buffer.layout.has_frames else SCALARS
    return {name: getattr(buffer, name) for name in names}


def _written(filled: np.ndarray, ring: int) -> int:
    """Slots ever written in the fullest ring, that of its provisional next observation included."""
    return min(int(filled.max()) + 1, ring)


def _count(arrays: Mapping[str, np.ndarray], ring: int) -> int:
    """Slots of a ring that are there: those written, or more, up to all of them, when padded."""
    least = _written(arrays["filled"], ring)
    return min(max(least, arrays["reward"].shape[1]), ring)


def _host_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.uint16) if dtype == jnp.bfloat16 else np.dtype(dtype)


def _to_host(array: jax.Array, written: int, layout: Layout) -> np.ndarray:
    """The first `written` slots of each ring [S*E, K, ...], from all devices."""
    shards = _shards(array)
    of_shard = _view if shards[0].device.platform == "cpu" else _fetch
    parts = [of_shard(shard.data, written, layout.ring, layout.environments) for shard in shards]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _recent(array: jax.Array, cursor: np.ndarray, count: int, layout: Layout) -> np.ndarray:
    """The `count` slots before each cursor [S, E], and that at it, [S*E, count+1, ...]."""
    shards = _shards(array)
    take = _take if shards[0].device.platform == "cpu" else _take_in_pieces
    out = np.empty((*cursor.shape, count + 1, *array.shape[2:]), array.dtype)
    seeds = ((shard.data, row) for shard in shards for row in range(len(shard.data)))
    for seed, (held, row) in enumerate(seeds):
        for number, at in enumerate(cursor[seed]):
            slots = number * layout.ring + (at + np.arange(-count, 1)) % layout.ring
            take(held, row, slots, out[seed, number])
    return out.reshape(-1, *out.shape[2:])


def _take(array: jax.Array, seed: int, slots: np.ndarray, out: np.ndarray) -> None:
    out[:] = np.asarray(array)[seed, slots]


def _take_in_pieces(array: jax.Array, seed: int, slots: np.ndarray, out: np.ndarray) -> None:
    """Copies from another device's memory, in pieces of one size: the last may repeat some slots.

    Pieces of every size would each be a program of their own, and stay in memory.
    """
    size = _slice_size(array)
    for start in range(0, len(slots), size):
        piece = np.resize(slots[start : start + size], size)
        out[start : start + size] = np.asarray(_gather(array, seed, piece))[: len(slots) - start]


def _shards(array: jax.Array) -> list[Any]:
    """The parts of an array on all devices, by seed."""
    shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    return sorted(shards, key=lambda shard: shard.index[0].start or 0)


def _slice_size(array: jax.Array) -> int:
    """Slots that are copied at a time."""
    slot = array.dtype.itemsize * int(np.prod(array.shape[2:]))
    return max(1, min(SLICE, SLICE_BYTES // slot))


def _view(array: jax.Array, written: int, ring: int, environments: int) -> np.ndarray:
    first = _rings(np.asarray(array), ring, environments)[:, :, :written]
    return first.reshape(-1, *first.shape[2:])


def _fetch(array: jax.Array, written: int, ring: int, environments: int) -> np.ndarray:
    """Copies from another device's memory, in slices of one size that are compiled once.

    Slices that grow with the run would each be a program of their own, and stay in memory.
    """
    size = min(_slice_size(array), ring)
    out = np.empty((array.shape[0], environments, written, *array.shape[2:]), array.dtype)
    for seed, number in np.ndindex(out.shape[:2]):
        for start in range(0, written, size):
            first = min(start, ring - size)  # a slice that would leave the ring begins earlier
            block = np.asarray(_slice(array, seed, number * ring + first, size))
            out[seed, number, first : first + size] = block[: written - first]
    return out.reshape(-1, *out.shape[2:])


@partial(jax.jit, static_argnames="size")
def _slice(array: jax.Array, seed: int, start: int, size: int) -> jax.Array:
    """`size` slots of a seed, from `start`."""
    rest = array.shape[2:]
    corner = (seed, start, *(0,) * len(rest))
    return jax.lax.dynamic_slice(array, corner, (1, size, *rest))[0]


@jax.jit
def _gather(array: jax.Array, seed: int, slots: jax.Array) -> jax.Array:
    """Some slots of a seed."""
    return array[seed, slots]


def _spread(
    slots: np.ndarray, like: jax.Array | jax.ShapeDtypeStruct, layout: Layout
) -> np.ndarray:
    """The slots [S*E, K, ...] where they belong in `like`'s shape, zeros elsewhere."""
    out = np.zeros(like.shape, like.dtype)
    rings = _rings(out, layout.ring, layout.environments)
    written = min(slots.shape[1], layout.ring)
    rings[:, :, :written] = slots[:, :written].reshape(*rings.shape[:2], written, *slots.shape[2:])
    return out


def _rings(slots: np.ndarray, ring: int, environments: int) -> np.ndarray:
    """A view [S, E, ring, ...] of slots [S, N, ...]; a sum tree's leaves have padding."""
    own = slots[:, : environments * ring]
    return own.reshape(len(own), environments, ring, *own.shape[2:])


def _place(array: np.ndarray, like: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """On the device, committed to it only if `like` is.

    An array that is committed where the original was not makes every program of it another one,
    which is compiled again and which the persistent cache does not know.
    """
    committed = getattr(like, "committed", True)
    return jax.device_put(array, like.sharding if committed else None)
