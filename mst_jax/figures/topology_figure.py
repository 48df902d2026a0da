"""A picture of masks: each sparse layer at the start of training and now."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mst_jax.analysis.layers import Layer, Layers
from mst_jax.figures.style import plain

WIDEST = 256  # more rows or columns are not visible in print; they are averaged into blocks


def title_of(found: Layers) -> str:
    """Task, recipe and seed of a picture, whether it diverged, and which modules have no masks."""
    settings = found.settings
    title = f"{settings.task}, {settings.recipe}, seed {found.seed}, step {found.step:,}"
    title += "" if found.healthy else ", DIVERGED"
    return title + (f"\ndense: {', '.join(found.dense)}" if found.dense else "")


def draw_topology(layers: list[Layer], title: str) -> Figure:
    """Draws each sparse layer at the start (left) and now (right), two layers a row.

    Kept weights are dark, grown ones blue, removed ones orange. Layers whose mask is full, as
    Erdős–Rényi leaves small ones, are named below the title and not drawn.
    """
    sparse = [layer for layer in layers if not (layer.before.all() and layer.after.all())]
    full = [layer.name for layer in layers if layer.before.all() and layer.after.all()]
    rows = max(-(-len(sparse) // 2), 1)
    figure = Figure(figsize=(10.0, 2.3 * rows + 1.0), layout="constrained")
    note = "dark: kept, blue: grown, orange: removed since the start"
    if full:
        note += "\nfull: " + ", ".join(full)
    figure.suptitle(plain(f"{title}\n{note}"), fontsize=8)
    axes = figure.subplots(rows, 4, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for (left, right), layer in zip(axes.reshape(-1, 2), sparse, strict=False):
        _show(left, layer.before, layer.before)
        _show(right, layer.before, layer.after)
        grown = np.count_nonzero(layer.after & ~layer.before) / max(layer.after.sum(), 1)
        name = plain(layer.name)
        left.set_title(f"{name}\n{layer.before.mean():.1%} of weights", fontsize=7)
        right.set_title(f"now {layer.after.mean():.1%}\n{grown:.0%} of it grown", fontsize=7)
    if not sparse:
        axes[0, 0].text(0, 0.5, "Every module is dense: there are no masks to show.")
    return figure


def _show(axis: Axes, before: np.ndarray, after: np.ndarray) -> None:
    """Colours a block by its shares of kept (grey), grown (blue) and removed (orange) weights."""
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
    axis.axis("on")
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
