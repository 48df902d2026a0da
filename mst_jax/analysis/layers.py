"""The masks of one seed, layer by layer: before training, and in the newest light checkpoint."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mst_jax.agents import ModuleConfig
from mst_jax.runs import Settings
from mst_jax.runs.folder import INITIAL_TOPOLOGY
from mst_jax.runs.health import healthy_at, read_diverged
from mst_jax.runs.history import read_leaf, read_ties, single
from mst_jax.runs.light import masks_in, read_light
from mst_jax.topology.mask_tree import as_matrix


class Layer(NamedTuple):
    """One layer's masks (inputs, outputs) before and after."""

    name: str
    before: np.ndarray
    after: np.ndarray


class Layers(NamedTuple):
    """What `read_layers` found.

    Attributes:
        settings: of the run.
        seed: whose layers these are.
        step: agent steps taken when the checkpoint was written.
        healthy: whether all that the checkpoint holds of the seed is finite, and its rows do not
            show that it had diverged.
        layers: every masked layer of the seed, in the order of its path.
        masks: {path: bool (S, ...)} of every masked leaf and seed, in the checkpoint, without tied
            axes.
    """

    settings: Settings
    seed: int
    step: int
    healthy: bool
    layers: list[Layer]
    masks: dict[str, np.ndarray]

    @property
    def dense(self) -> list[str]:
        """Names of the modules without a mask."""
        masked = {path.partition("/")[0] for path in self.masks}
        modules = vars(self.settings.config).items()
        return [n for n, value in modules if isinstance(value, ModuleConfig) and n not in masked]


def read_layers(folder: Path, seed: int | None = None) -> Layers:
    """Masks of one seed at the start and in the newest light checkpoint; no agent is built.

    Args:
        folder: run folder.
        seed: one of the run's seeds; the first by default.

    Raises:
        ValueError: when the folder is not a run, has no checkpoint yet, does not hold the seed, or
            its config.json was changed since the run began.
    """
    settings, checkpoint = read_light(folder)
    index, initial = settings.index_of(seed), folder / INITIAL_TOPOLOGY
    ties = read_ties(initial)
    masks = {
        path: single(np.asarray(mask), ties.get(path))
        for path, mask in masks_in(checkpoint.arrays).items()
    }
    layers = [
        Layer(
            short_name(path),
            as_matrix(read_leaf(initial, path)[index]),
            as_matrix(masks[path][index]),
        )
        for path in sorted(masks)
    ]
    number = settings.seed_list[index]
    finite = all(np.isfinite(array[index]).all() for array in checkpoint.arrays.values())
    healthy = finite and healthy_at(checkpoint.step, read_diverged(folder).get(number))
    return Layers(settings, number, checkpoint.step, healthy, layers, masks)


def short_name(layer: str) -> str:
    """A leaf's path without the name that nearly all leaves end in."""
    return layer.removesuffix("/kernel")
