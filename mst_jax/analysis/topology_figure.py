"""A picture of masks: each sparse layer at the start of training and now."""

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

WIDEST = (
    256  # more rows or columns than this are not visible in print; they are averaged into blocks
)


class Layer(NamedTuple):
    """One layer's masks (inputs, outputs) before and after."""

    name: str
    before: np.ndarray
    after: np.ndarray


def draw_topology(layers: list[Layer], path: Path, title: str) -> None:
    """Draws kept weights as dark points; grown ones blue, removed ones orange in the second column."""
    rows = max(len(layers), 1)
    figure, axes = plt.subplots(
        rows, 2, figsize=(7.0, 1.5 * rows + 0.8), squeeze=False, layout="constrained"
    )
    figure.suptitle(title, fontsize=10)
    for (left, right), layer in zip(axes, layers, strict=False):
        _show(left, layer.before, layer.before)
        _show(right, layer.before, layer.after)
        changed = np.mean(layer.before[layer.after] == 0) if layer.after.any() else 0.0
        left.set_title(f"{layer.name}: {layer.before.mean():.0%} of weights", fontsize=7)
        right.set_title(f"{layer.after.mean():.0%}, of which {changed:.0%} are new", fontsize=7)
    if not layers:
        for axis in axes[0]:
            axis.axis("off")
        axes[0, 0].text(0, 0.5, "every module is dense: there are no masks to show")
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _show(axis: Axes, before: np.ndarray, after: np.ndarray) -> None:
    """Colours per block: grey for kept, blue for grown, orange for removed, mixed by their shares."""
    kept, grown, removed = before & after, after & ~before, before & ~after
    colours = {
        "kept": (np.array([0.25, 0.25, 0.25]), kept),
        "grown": (np.array([0.0, 0.45, 0.70]), grown),
        "removed": (np.array([0.84, 0.37, 0.0]), removed),
    }
    image = np.ones((*_shrink(before).shape, 3))
    for colour, mask in colours.values():
        image -= _shrink(mask)[..., None] * (1.0 - colour)
    axis.imshow(np.clip(image, 0, 1), interpolation="nearest", aspect="auto")
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(f"{before.shape[1]} outputs", fontsize=6)
    axis.set_ylabel(f"{before.shape[0]} inputs", fontsize=6)


def _shrink(mask: np.ndarray) -> np.ndarray:
    """Shares of true entries in blocks small enough to draw; a small mask is returned as it is."""
    for axis in (0, 1):
        block = -(-mask.shape[axis] // WIDEST)
        starts = np.arange(0, mask.shape[axis], block)
        counts = np.diff(np.append(starts, mask.shape[axis]))
        shape = (-1, 1) if axis == 0 else (1, -1)
        mask = np.add.reduceat(mask.astype(float), starts, axis=axis) / counts.reshape(shape)
    return mask
