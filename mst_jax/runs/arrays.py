"""Trees as flat dictionaries of named arrays, as checkpoints and fingerprints see them."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Arrays = dict[str, np.ndarray]
BUFFER = "buffer/"
# Prefixes of what full checkpoints hold besides a run: environments on the host, best policies.
HOST, BEST = "host/", "best/"
SECONDS = "wall/seconds"  # and the seconds that training took up to them, float64 (S,)
BLOCK = 8_000_000  # bytes that are hashed at a time


def flatten(tree: Any) -> Arrays:
    """Names every leaf by its path; typed keys become their key data."""
    return {
        name: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for name, leaf in _named_leaves(tree)
    }


def unflatten(arrays: Arrays, like: Any) -> Any:
    """The inverse of `flatten`; `like` gives structure, key types and shardings (arrays or shapes).

    Raises:
        ValueError: when names, shapes or dtypes differ; the message lists the first differences.
    """
    named = _named_leaves(like)
    compare(arrays, expected(like))
    # `device_put` compiles nothing, as `jnp.asarray` does for each shape. On a CPU it shares memory
    # with what it is given, which therefore is a copy.
    put = {
        name: jax.device_put(np.array(arrays[name]), _committed_to(leaf)) for name, leaf in named
    }
    leaves = [
        jax.random.wrap_key_data(put[name]) if _is_key(leaf) else put[name] for name, leaf in named
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def shapes_of(tree: Any) -> Any:
    """The shapes of arrays, with the devices they are on if they are committed to them.

    What is restored without being committed to its devices where the original was, or the other way
    round, makes every program another one, which is compiled again.
    """
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_committed_to(leaf)),
        tree,
    )


def own_arrays(arrays: Arrays) -> Arrays:
    """Those arrays of a full checkpoint that are the run's."""
    return {name: a for name, a in arrays.items() if not name.startswith((HOST, BEST, SECONDS))}


def with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with a prefix, without it."""
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}


def split(arrays: Arrays, counts: Sequence[int]) -> list[Arrays]:
    """Arrays of several runs as each run alone would have them, but for padding of replay slots.

    Args:
        arrays: with a leading axis of all seeds, run by run, or of what every seed has equally many
            of, such as environments; scalars and the buffer's layout belong to every run.
        counts: seeds of each run.
    """
    total = sum(counts)

    def rows(name: str, array: np.ndarray, start: int, stop: int) -> np.ndarray:
        if _is_shared(name, array):
            return array
        each = array.shape[0] // total
        return array[start * each : stop * each]

    bounds = itertools.pairwise([0, *np.cumsum(counts).tolist()])
    return [{name: rows(name, a, *bound) for name, a in arrays.items()} for bound in bounds]


def join(parts: Sequence[Arrays]) -> Arrays:
    """The inverse of `split`; ValueError when the parts do not have the same names."""
    if len(parts) == 1:
        return parts[0]
    names = parts[0].keys()
    different = sorted(set().union(*(part.keys() ^ names for part in parts)))
    if different:
        raise ValueError(f"the runs' checkpoints differ in {different[0]}")
    return {
        name: array if _is_shared(name, array) else _stacked([part[name] for part in parts])
        for name, array in parts[0].items()
    }


def fingerprint(arrays: Arrays) -> str:
    """One hash over a run's arrays: parameters, masks, optimizer states, buffer and the rest."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        # A scalar is hashed as an array of one: so were the fingerprints there are.
        digest.update(f"{name} {value.dtype} {np.atleast_1d(value).shape}\n".encode())
        for block in blocks(value, BLOCK):
            digest.update(block.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def blocks(array: np.ndarray, largest: int) -> Iterator[np.ndarray]:
    """Cuts an array into contiguous blocks that, one after the other, hold it in C order.

    Args:
        array: any array; only a block of one that is not contiguous is copied, when its turn comes.
        largest: bytes of a block, but for an element that takes more.

    Yields:
        The blocks; none of an array without elements.
    """
    if array.nbytes <= max(largest, array.itemsize):
        if array.size:
            yield np.ascontiguousarray(array)
        return
    rows = largest // array[0].nbytes
    if rows:
        for start in range(0, len(array), rows):
            yield np.ascontiguousarray(array[start : start + rows])
    else:
        for row in array:
            yield from blocks(row, largest)


def expected(like: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """What `flatten` makes of a tree of arrays or shapes."""
    return {name: _expected(leaf) for name, leaf in _named_leaves(like)}


def compare(found: Any, expected: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Raises ValueError when names, shapes or dtypes differ, naming the first three differences."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not expected" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        have = (tuple(found[name].shape), np.dtype(found[name].dtype))
        want = (tuple(expected[name].shape), np.dtype(expected[name].dtype))
        if have != want:
            problems.append(
                f"{name} is {have[1]}{list(have[0])}, expected {want[1]}{list(want[0])}"
            )
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            "the arrays do not fit this run: " + "; ".join(sorted(problems)[:3]) + more
        )


def _is_shared(name: str, array: np.ndarray) -> bool:
    return array.ndim == 0 or name == f"{BUFFER}layout"


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Joined along the first axis, the second padded with zeros to the longest."""
    if arrays[0].ndim > 1:
        longest = max(array.shape[1] for array in arrays)
        arrays = [
            np.pad(a, [(0, 0), (0, longest - a.shape[1]), *[(0, 0)] * (a.ndim - 2)]) for a in arrays
        ]
    return np.concatenate(arrays)


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _committed_to(leaf: Any) -> jax.sharding.Sharding | None:
    """The devices that an array, or the array that a shape stands for, is committed to, if any."""
    return getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _expected(leaf: Any) -> jax.ShapeDtypeStruct:
    if _is_key(leaf):
        return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
