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
      `rows`, `reward`, `terminated` and `priority` as [S, K, ...], K the slots written so far by
      the fullest seed; `cursor`, `filled`, `steps`, `max_priority`, `terminal_seen` as [S]; and
      `layout`, int64[4], the sizes that `unpack` checks. bfloat16 rows are given as their uint16
      bits, because NumPy's own files cannot hold that dtype.
    """
    written = _written(np.asarray(buffer.filled), capacity=buffer.reward.shape[1])
    slots = {
        "rows": buffer.rows,
        "reward": buffer.reward,
        "terminated": buffer.terminated,
        "priority": buffer.tree[0],
    }
    arrays = {name: _to_host(array, written) for name, array in slots.items()}
    arrays["rows"] = arrays["rows"].view(_host_dtype(buffer.rows.dtype))
    arrays |= {name: np.array(getattr(buffer, name)) for name in SCALARS}
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
        rows=_to_device(arrays["rows"].view(like.rows.dtype), like.rows),
        reward=_to_device(arrays["reward"], like.reward),
        terminated=_to_device(arrays["terminated"], like.terminated),
        tree=jax.vmap(sum_tree.from_leaves)(_to_device(arrays["priority"], like.tree[0])),
        **{name: jnp.array(arrays[name]) for name in SCALARS},
    )
    return jax.tree.map(_place_like, restored, like)


def _check(arrays: Mapping[str, np.ndarray], like: Buffer) -> None:
    """Raises ValueError unless the arrays are what `pack` makes of a buffer such as `like`."""
    expected = {*SLOTS, *SCALARS, "layout"}
    if set(arrays) != expected:
        raise ValueError(
            f"packed buffer: arrays {sorted(set(arrays) ^ expected)} are missing or unknown"
        )
    sizes = (len(arrays["filled"]), *arrays["layout"]), (len(like.filled), *_layout(like))
    for name, found, wanted in zip(("num_seeds", *LAYOUT), *sizes, strict=True):
        if found != wanted:
            raise ValueError(
                f"packed buffer has {name} {found}, this one {wanted}; "
                "restore it with the settings it was made with"
            )
    for name in SCALARS:
        leaf = getattr(like, name)
        _check_array(name, arrays[name], leaf.shape, leaf.dtype)
    written = _slots(arrays, capacity=like.reward.shape[1])
    shapes = {
        "rows": (like.rows, _host_dtype(like.rows.dtype)),
        "reward": (like.reward, like.reward.dtype),
        "terminated": (like.terminated, like.terminated.dtype),
        "priority": (like.tree[0], like.tree[0].dtype),
    }
    for name, (leaf, dtype) in shapes.items():
        _check_array(name, arrays[name], (leaf.shape[0], written, *leaf.shape[2:]), dtype)


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if np.shape(array) != shape or array.dtype != dtype:
        raise ValueError(
            f"packed buffer: {name} is {array.dtype}{list(np.shape(array))}, "
            f"expected {np.dtype(dtype)}{list(shape)}"
        )


def _written(filled: np.ndarray, capacity: int) -> int:
    """Slots ever written by the fullest seed, that of its provisional next observation included."""
    return min(int(filled.max()) + 1, capacity)


def _slots(arrays: Mapping[str, np.ndarray], capacity: int) -> int:
    """Slots that are there: those written, or more, up to the capacity, when padded."""
    least = _written(arrays["filled"], capacity)
    return min(max(least, arrays["rows"].shape[1]), capacity)


def _layout(buffer: Buffer) -> np.ndarray:
    _, capacity, width = buffer.rows.shape
    size = buffer.observation_size
    return np.array([capacity, size, width - size, buffer.span], np.int64)


def _host_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.uint16) if dtype == jnp.bfloat16 else np.dtype(dtype)


def _to_host(array: jax.Array, written: int) -> np.ndarray:
    """Copies [S, :written] seed by seed, so the device never holds a second buffer.

    A copy, not a view: on CPU a view would alias memory that a donated insert overwrites.
    """
    out = np.zeros((array.shape[0], written, *array.shape[2:]), array.dtype)
    for seed in range(array.shape[0]):
        out[seed] = array[seed, :written]
    return out


def _to_device(values: np.ndarray, like: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """Writes [S, K, ...] into zeros shaped like `like`, seed by seed for the same reason."""
    slots = jnp.zeros(like.shape, like.dtype, device=like.sharding)
    write = jax.jit(_write_seed, donate_argnums=0, out_shardings=slots.sharding)
    for seed, block in enumerate(values):
        slots = write(slots, seed, block)
    return slots


def _write_seed(slots: jax.Array, seed: jax.Array, block: jax.Array) -> jax.Array:
    return slots.at[seed, : block.shape[0]].set(block)


def _place_like(leaf: jax.Array, like: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    return leaf if like.sharding is None else jax.device_put(leaf, like.sharding)
