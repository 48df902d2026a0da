"""A run's topology over time, as its files hold it: the start, the snapshots, and every layer."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mst_jax.runs import Settings, history, read_settings
from mst_jax.runs.folder import INITIAL_TOPOLOGY


class TopologyHistory(NamedTuple):
    """The masks of a run that moved, read from disk layer by layer.

    Attributes:
        settings: of the run.
        files: file of every snapshot, the masks before training first.
        steps: (T,) agent step of each.
        layers: paths of the leaves whose masks can move, `layer_2` before `layer_10`.
        sizes: (inputs, outputs) of each layer, kernel and ensemble axes counted as inputs.
    """

    settings: Settings
    files: list[Path]
    steps: np.ndarray
    layers: list[str]
    sizes: dict[str, tuple[int, int]]

    def masks(self, layer: str) -> np.ndarray:
        """Masks of one layer over time, one byte a weight.

        Args:
            layer: one of `layers`.

        Returns:
            bool (S, T, inputs, outputs).
        """
        seeds = [read_leaf(file, layer) for file in self.files]
        return np.stack(seeds, axis=1).reshape(len(seeds[0]), len(seeds), *self.sizes[layer])


def read_history(folder: Path) -> TopologyHistory:
    """Reads what a run kept of its topology.

    Raises:
        ValueError: when the folder is not a run or holds no snapshot.
    """
    settings = read_settings(folder)
    snapshots = history.saved(folder)
    if not snapshots:
        raise ValueError(
            f"{folder} holds no topology history: no mask of the run can move, or it has not come "
            f"to its first snapshot (--history_every={settings.history_every}, 0 is never)"
        )
    files = [folder / INITIAL_TOPOLOGY, *snapshots.values()]
    with np.load(files[-1]) as file:
        shapes = {
            name.removeprefix("shape/"): file[name].tolist()
            for name in file.files
            if name.startswith("shape/")
        }
    layers = sorted(shapes, key=_natural)
    sizes = {name: as_matrix(np.empty(shapes[name][1:], bool)).shape for name in layers}
    return TopologyHistory(settings, files, np.array([0, *snapshots]), layers, sizes)


def read_leaf(path: Path, leaf: str) -> np.ndarray:
    """One leaf's masks of all seeds, bool (S, ...), from a file of bit-packed masks."""
    with np.load(path) as file:
        shape = file[f"shape/{leaf}"]
        return np.unpackbits(file[f"bits/{leaf}"], count=shape.prod()).reshape(shape).astype(bool)


def as_matrix(mask: np.ndarray) -> np.ndarray:
    """A mask as (inputs, outputs): kernel and ensemble axes join the inputs; a vector is a row."""
    return mask.reshape(-1, mask.shape[-1])


def short_name(layer: str) -> str:
    """A leaf's path without the name that nearly all leaves end in."""
    return layer.removesuffix("/kernel")


def _natural(path: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]
