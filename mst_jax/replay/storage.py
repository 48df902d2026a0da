"""The buffer as plain NumPy arrays, and back: what a checkpoint stores.

Only slots that were ever written are kept, and of the sum tree only its leaves: a parent is a
function of them, so the round trip is bit-exact.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.replay import sum_tree
from mst_jax.replay.ring import Buffer

SLOTS = ("rows", "reward", "terminated", "priority")
SCALARS = ("cursor", "filled", "steps", "max_priority", "terminal_seen")
LAYOUT = ("capacity", "observation_size", "action_size", "span")


def pack(buffer: Buffer) -> dict[str, np.ndarray]:
    """Copies the buffer to the host.

    Args:
      buffer: the buffer.

    Returns:
      `rows`, `reward`, `terminated` and `priority` as [S*E, K, ...], K the slots written so far in
      the fullest ring; `cursor`, `filled` and `steps` as [S*E], `max_priority` and `terminal_seen`
      as [S]; and `layout`, int64[4], the sizes that `unpack` checks. bfloat16 rows are given as
      their uint16 bits, because NumPy's own files cannot hold that dtype.
    """
    written = _written(np.asarray(buffer.filled), _ring(buffer))
    slots = {
        "rows": buffer.rows,
        "reward": buffer.reward,
        "terminated": buffer.terminated,
        "priority": buffer.tree[0],
    }
    arrays = {name: _to_host(array, written, buffer) for name, array in slots.items()}
    arrays["rows"] = arrays["rows"].view(_host_dtype(buffer.rows.dtype))
    arrays |= {name: np.array(getattr(buffer, name)).ravel() for name in SCALARS}
    return arrays | {"layout": _layout(buffer)}


def unpack(arrays: Mapping[str, np.ndarray], like: Buffer) -> Buffer:
    """Restores a buffer from `pack`'s arrays, bit for bit.

    Args:
      arrays: what `pack` returned; the slots may be padded with zeros.
      like: a buffer of the same layout, or its shapes (`jax.eval_shape` of `create`); its values
        are not used. If its leaves have shardings, the restored ones get the same.

    Returns:
      The buffer.

    Raises:
      ValueError: if an array is missing, or a size or dtype differs from `like`'s.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    _check(arrays, like)
    restored = dataclasses.replace(
        like,
        rows=_to_device(arrays["rows"].view(like.rows.dtype), like.rows, like),
        reward=_to_device(arrays["reward"], like.reward, like),
        terminated=_to_device(arrays["terminated"], like.terminated, like),
        tree=jax.vmap(sum_tree.from_leaves)(_to_device(arrays["priority"], like.tree[0], like)),
        **{name: jnp.array(arrays[name].reshape(getattr(like, name).shape)) for name in SCALARS},
    )
    return jax.tree.map(_place_like, restored, like)


def _check(arrays: Mapping[str, np.ndarray], like: Buffer) -> None:
    """Raises ValueError unless the arrays are what `pack` makes of a buffer such as `like`."""
    expected = {*SLOTS, *SCALARS, "layout"}
    if set(arrays) != expected:
        raise ValueError(
            f"packed buffer: arrays {sorted(set(arrays) ^ expected)} are missing or unknown"
        )
    seeds = len(arrays["max_priority"]), len(like.max_priority)
    sizes = (seeds[0], *arrays["layout"]), (seeds[1], *_layout(like))
    for name, found, wanted in zip(("num_seeds", *LAYOUT), *sizes, strict=True):
        if found != wanted:
            raise ValueError(
                f"packed buffer has {name} {found}, this one {wanted}; "
                "restore it with the settings it was made with"
            )
    for name in SCALARS:
        leaf = getattr(like, name)
        _check_array(name, arrays[name], (leaf.size,), leaf.dtype)
    rings, written = like.filled.size, _slots(arrays, _ring(like))
    shapes = {
        "rows": (like.rows, _host_dtype(like.rows.dtype)),
        "reward": (like.reward, like.reward.dtype),
        "terminated": (like.terminated, like.terminated.dtype),
        "priority": (like.tree[0], like.tree[0].dtype),
    }
    for name, (leaf, dtype) in shapes.items():
        _check_array(name, arrays[name], (rings, written, *leaf.shape[2:]), dtype)


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if np.shape(array) != shape or array.dtype != dtype:
        raise ValueError(
            f"packed buffer: {name} is {array.dtype}{list(np.shape(array))}, "
            f"expected {np.dtype(dtype)}{list(shape)}"
        )


def _ring(buffer: Buffer) -> int:
    """Slots of each ring."""
    return buffer.reward.shape[1] // buffer.environments


def _written(filled: np.ndarray, ring: int) -> int:
    """Slots ever written in the fullest ring, that of its provisional next observation included."""
    return min(int(filled.max()) + 1, ring)


def _slots(arrays: Mapping[str, np.ndarray], ring: int) -> int:
    """Slots of a ring that are there: those written, or more, up to all of them, when padded."""
    least = _written(arrays["filled"], ring)
    return min(max(least, arrays["rows"].shape[1]), ring)


def _layout(buffer: Buffer) -> np.ndarray:
    _, capacity, width = buffer.rows.shape
    size = buffer.observation_size
    return np.array([capacity, size, width - size, buffer.span], np.int64)


def _host_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.uint16) if dtype == jnp.bfloat16 else np.dtype(dtype)


def _to_host(array: jax.Array, written: int, buffer: Buffer) -> np.ndarray:
    """Copies the first `written` slots of each ring, so the device never holds a second buffer.

    A copy, not a view: on CPU a view would alias memory that a donated insert overwrites.
    """
    starts = range(0, buffer.reward.shape[1], _ring(buffer))
    out = np.zeros((array.shape[0], len(starts), written, *array.shape[2:]), array.dtype)
    for seed in range(array.shape[0]):
        block = np.asarray(array[seed, : starts[-1] + written])
        for number, start in enumerate(starts):
            out[seed, number] = block[start : start + written]
    return out.reshape(-1, *out.shape[2:])


def _to_device(
    values: np.ndarray, like: jax.Array | jax.ShapeDtypeStruct, buffer: Buffer
) -> jax.Array:
    """The inverse of `_to_host`, zeros elsewhere; seed by seed for the same reason."""
    slots = jnp.zeros(like.shape, like.dtype, device=like.sharding)
    write = jax.jit(_write_seed, donate_argnums=0, out_shardings=slots.sharding)
    of_seeds = values.reshape(-1, buffer.environments, *values.shape[1:])
    for seed, blocks in enumerate(of_seeds):
        slots = write(slots, seed, _spread(blocks, _ring(buffer)))
    return slots


def _spread(blocks: np.ndarray, ring: int) -> np.ndarray:
    """The first slots of a seed's rings [E, K, ...] where they belong, zeros between the rings."""
    rings, written = blocks.shape[:2]
    if rings == 1:
        return blocks[0]
    spread = np.zeros((rings, ring, *blocks.shape[2:]), blocks.dtype)
    spread[:, :written] = blocks
    return spread.reshape(-1, *blocks.shape[2:])


def _write_seed(slots: jax.Array, seed: jax.Array, block: jax.Array) -> jax.Array:
    return slots.at[seed, : block.shape[0]].set(block)


def _place_like(leaf: jax.Array, like: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    return leaf if like.sharding is None else jax.device_put(leaf, like.sharding)
