"""Degree distributions of sparse layers, beside what an Erdős–Rényi random layer would have."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mst_jax import topology
from mst_jax.analysis.layers import short_name
from mst_jax.figures.style import PALETTE, plain
from mst_jax.topology.mask_tree import as_matrix

BARS = 30  # at most; more are not told apart in a small panel


def erdos_renyi_degrees(partners: int, neurons: int, active: int) -> np.ndarray:
    """Probability of each degree when a layer's active weights are spread uniformly at random.

    With their number fixed, a neuron's degree is hypergeometric: of partners x neurons positions
    `active` are chosen, and `partners` of them are the neuron's.

    Args:
        partners: largest possible degree (the inputs, for the in-degree of outputs).
        neurons: how many neurons share the weights.
        active: active weights of the layer.

    Returns:
        float64 (partners + 1,), for the degrees 0, 1, ..., partners.
    """
    positions = partners * neurons
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, positions + 1)))])

    def log_choose(n: int, k: np.ndarray) -> np.ndarray:
        return log_factorial[n] - log_factorial[k] - log_factorial[n - k]

    degrees = np.arange(partners + 1)
    rest = active - degrees  # on the other neurons
    possible = (rest >= 0) & (rest <= positions - partners)
    found = np.zeros(partners + 1)
    chosen, rest = degrees[possible], rest[possible]
    ways = log_choose(partners, chosen) + log_choose(positions - partners, rest)
    found[possible] = np.exp(ways - log_choose(positions, np.array(active)))
    return found


def draw_degrees(layers: dict[str, np.ndarray], title: str) -> Figure:
    """Draws in-degrees of outputs and out-degrees of inputs, all seeds together, two layers a row.

    Args:
        layers: name -> bool (S, inputs, outputs), masks of all seeds; full layers are left out.
        title: of the figure.

    Returns:
        The figure, not saved.

    Raises:
        ValueError: no layer has a mask with a hole.
    """
    sparse = {name: masks for name, masks in layers.items() if not masks.all()}
    if not sparse:
        raise ValueError("every layer is full: there is no degree distribution to draw")
    rows = -(-len(sparse) // 2)
    figure = Figure(figsize=(10.0, 1.9 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False)
    for axis in axes.flat[2 * len(sparse) :]:
        axis.axis("off")
    for (left, right), (name, masks) in zip(axes.reshape(-1, 2), sparse.items(), strict=False):
        degrees = [topology.degrees(seed) for seed in masks]
        incoming, outgoing = (np.stack(kind) for kind in zip(*degrees, strict=True))
        active = round(masks.sum() / len(masks))
        inputs, outputs = masks.shape[1:]
        _draw(left, incoming, erdos_renyi_degrees(inputs, outputs, active))
        _draw(right, outgoing, erdos_renyi_degrees(outputs, inputs, active))
        left.set_title(plain(name), fontsize=8)
        left.set_xlabel("incoming weights of an output", fontsize=7)
        right.set_xlabel("outgoing weights of an input", fontsize=7)
    note = "bars: now, all seeds; line: the same weights at random"
    figure.suptitle(plain(f"{title}\n{note}"), fontsize=9)
    figure.supylabel("share of neurons", fontsize=8)
    return figure


def layers_of(masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{path: bool (S, ...)} as {name: (S, inputs, outputs)}; vectors have no degrees."""
    return {
        short_name(path): np.stack([as_matrix(seed) for seed in stacked])
        for path, stacked in sorted(masks.items())
        if stacked.ndim > 2
    }


def _draw(axis: Axes, degrees: np.ndarray, predicted: np.ndarray) -> None:
    """Histogram of degrees (S, neurons) and the probabilities (largest + 1,) in the same bins."""
    likely = np.flatnonzero(predicted > 1e-4)
    low, high = min(degrees.min(), likely[0]), max(degrees.max(), likely[-1])
    width = -(-(high + 1 - low) // BARS)
    borders = np.arange(low, high + width + 1, width)
    shares = np.histogram(degrees, borders)[0] / degrees.size
    expected = np.add.reduceat(np.append(predicted[low:], np.zeros(width)), borders[:-1] - low)
    centres = borders[:-1] + (width - 1) / 2
    axis.bar(centres, shares, 0.9 * width, color=PALETTE[5], label="now")
    axis.plot(centres, expected, color=PALETTE[6], marker=".", markersize=3, linewidth=1.0)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
