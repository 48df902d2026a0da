"""Topology history: every so many steps the masks that can move, at one bit a weight.

RUN/topology/STEP.npz holds all seeds stacked, in the format of `mst_jax.topology.save_masks`,
which NumPy alone reads. Masks that never move are in the run's topology_initial.npz only.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mst_jax import topology
from mst_jax.agents import Agent
from mst_jax.runs.config_file import read_settings
from mst_jax.runs.files import sync
from mst_jax.runs.folder import INITIAL_TOPOLOGY, TOPOLOGY
from mst_jax.runs.settings import Settings
from mst_jax.topology.mask_tree import as_matrix, named_leaves, natural


class TopologyHistory(NamedTuple):
    """The masks of a run that moved, read from disk layer by layer.

    Attributes:
        settings: of the run.
        files: file of every snapshot, the masks before training first.
        steps: (T,) agent step of each.
        layers: paths of the leaves whose masks can move, `layer_2` before `layer_10`.
        sizes: (inputs, outputs) of each layer, kernel and ensemble axes counted as inputs, a tied
            axis not at all.
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


def moving_leaves(agent: Agent) -> dict[str, tuple[int, ...]]:
    """{path: shape} of the leaves whose masks can change; paths begin with the module's name."""
    return {
        f"{module}/{entry.path}": entry.shape
        for module, plan in agent.plans.items()
        for group in plan.groups
        for entry in group.entries
        if entry.drops or entry.grows
    }


def tied_leaves(agent: Agent) -> dict[str, int]:
    """{path: tied axis, counted from the last}; paths begin with the module's name."""
    return {
        f"{module}/{path}": axis
        for module, plan in agent.plans.items()
        for path, axis in plan.tied.items()
    }


def save(folders: Mapping[Path, slice], agent: Agent, states: Any, step: int) -> None:
    """Writes the masks after `step`; each file appears whole or not at all.

    Nothing is written for an agent whose masks never move.

    Args:
        folders: run folders, and which seeds are theirs.
        agent: one-seed functions.
        states: agent states of all seeds.
        step: agent steps taken.
    """
    moving = moving_leaves(agent)
    if not moving:
        return
    masks = {path: m for path, m in named_leaves(agent.masks(states)).items() if path in moving}
    tied = tied_leaves(agent)
    for folder, rows in folders.items():
        (folder / TOPOLOGY).mkdir(exist_ok=True)
        own = {path: mask[rows] for path, mask in masks.items()}
        path = folder / TOPOLOGY / f"{step:012d}.npz"
        topology.save_masks(path, own, tied)
        sync(path)  # a checkpoint after it counts on it
        sync(path.parent)


def saved(folder: Path) -> dict[int, Path]:
    """{agent step: file} of the snapshots of a run, in the order of time."""
    return {int(path.stem): path for path in sorted((folder / TOPOLOGY).glob("[0-9]*.npz"))}


def read_history(folder: Path) -> TopologyHistory:
    """Reads what a run kept of its topology.

    Raises:
        ValueError: when the folder is not a run or holds no snapshot.
    """
    settings = read_settings(folder)
    snapshots = saved(folder)
    if not snapshots:
        raise ValueError(
            f"{folder} holds no topology history: no mask of the run can move, or it has not come "
            f"to its first snapshot (history_every={settings.history_every}, 0 is never)"
        )
    files = [folder / INITIAL_TOPOLOGY, *snapshots.values()]
    with np.load(files[-1]) as file:
        shapes = {
            name.removeprefix("shape/"): np.empty(file[name], bool)
            for name in file.files
            if name.startswith("shape/")
        }
    layers, ties = sorted(shapes, key=natural), read_ties(files[-1])
    sizes = {name: as_matrix(single(shapes[name], ties.get(name))[0]).shape for name in layers}
    return TopologyHistory(settings, files, np.array([0, *snapshots]), layers, sizes)


def read_leaf(path: Path, leaf: str) -> np.ndarray:
    """One leaf's masks of all seeds, bool (S, ...) without a tied axis, from bit-packed masks."""
    with np.load(path) as file:
        shape, axis = file[f"shape/{leaf}"], file.get(f"tied/{leaf}")
        bits = np.unpackbits(file[f"bits/{leaf}"], count=shape.prod())
        return single(bits.reshape(shape).astype(bool), axis)


def read_ties(path: Path) -> dict[str, int]:
    """{leaf: tied axis, counted from the last} of a file of bit-packed masks."""
    with np.load(path) as file:
        names = [name for name in file.files if name.startswith("tied/")]
        return {name.removeprefix("tied/"): int(file[name]) for name in names}


def single(mask: np.ndarray, axis: int | None) -> np.ndarray:
    """A mask without its tied axis, along which all entries are alike."""
    return mask if axis is None else mask.take(0, axis=int(axis))


def cut_back(folder: Path, step: int) -> None:
    """Deletes the snapshots after `step`, and one half-written, as if they had never been."""
    for path in (folder / TOPOLOGY).glob("*.partial"):
        path.unlink()
    for taken, path in saved(folder).items():
        if taken > step:
            path.unlink()


def total_bytes(agent: Agent, settings: Settings) -> int:
    """Size of a whole run's history, without the files' headers of some hundred bytes a leaf."""
    if not settings.history_every:
        return 0
    snapshots = math.ceil(settings.steps / settings.history_every)
    bits = sum(math.prod(shape) for shape in moving_leaves(agent).values())
    return snapshots * math.ceil(settings.seeds * bits / 8)
