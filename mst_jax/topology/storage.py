"""Masks on disk: one bit per weight, readable with NumPy alone.

The file is an ``.npz``. For every masked leaf it holds ``bits/<path>`` (``numpy.packbits`` of the
flattened mask) and ``shape/<path>``, and ``tied/<path>`` if the entries along an axis are alike;
``dense`` lists the paths without a mask.
"""

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.topology.compact import densified
from mst_jax.topology.mask_tree import DenseLeaf, PyTree, is_sentinel, named_leaves, path_of


def save_masks(
    path: str | os.PathLike[str], masks: PyTree, tied: Mapping[str, int] | None = None
) -> None:
    """Writes a mask tree, bit-packed; the file appears whole or not at all.

    Args:
        path: file to write.
        masks: mask tree, concrete; any leading axes.
        tied: path -> tied axis, counted from the last, as `Plan.tied`; for who looks at the file.
    """
    named = named_leaves(densified(masks), is_leaf=is_sentinel)
    arrays = {"dense": np.array([name for name, m in named.items() if is_sentinel(m)], dtype=str)}
    for name, mask in named.items():
        if not is_sentinel(mask):
            arrays[f"bits/{name}"] = np.packbits(np.asarray(mask, bool).reshape(-1))
            arrays[f"shape/{name}"] = np.asarray(mask.shape, np.int64)
            if tied and name in tied:
                arrays[f"tied/{name}"] = np.asarray(tied[name], np.int64)
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # ty: ignore[invalid-argument-type] - allow_pickle is no leaf
    partial.replace(path)


def load_masks(path: str | os.PathLike[str], like: PyTree | None = None) -> PyTree:
    """Reads a mask tree written by `save_masks`.

    Args:
        path: the file.
        like: a tree with the wanted structure (parameters or masks). By default nested dicts are
            built from the paths, which is exact for dictionaries whose keys contain no ``/``.

    Returns:
        Mask tree.

    Raises:
        ValueError: the file is damaged, or ``like`` has other leaves than it.
        OSError: it cannot be read.
    """
    try:
        named = _read(path)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as masks: {error!r}") from error
    if like is None:
        return _nested(named)
    wanted = named_leaves(like, is_leaf=is_sentinel)
    if set(wanted) != set(named):
        odd = sorted(set(wanted) ^ set(named))[0]
        raise ValueError(f"{path} and the given tree have different leaves, for example {odd!r}")
    return jax.tree_util.tree_map_with_path(
        lambda key_path, _: named[path_of(key_path)], like, is_leaf=is_sentinel
    )


def _read(path: str | os.PathLike[str]) -> dict[str, PyTree]:
    with Path(path).open("rb") as raw, np.load(raw) as file:
        named: dict[str, PyTree] = {name: DenseLeaf() for name in file["dense"].tolist()}
        for entry in file.files:
            kind, _, name = entry.partition("/")
            if kind == "bits":
                shape = file[f"shape/{name}"]
                bits = np.unpackbits(file[entry], count=int(shape.prod()))
                named[name] = jnp.asarray(bits.astype(bool).reshape(shape))
    return named


def _nested(named: dict[str, PyTree]) -> PyTree:
    tree: PyTree = {}
    for name, value in named.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = value
    return tree
