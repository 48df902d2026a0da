"""Heat maps of how samples' gradients agree, early and late in training."""

import numpy as np
from matplotlib.figure import Figure

from mst_jax.figures.style import plain


def draw_covariances(pairs: dict[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draws each pair of matrices side by side on one scale from -1 (opposed) to 1 (aligned).

    Args:
        pairs: heading -> cosines between samples' gradients before and after, (B, B) each.
        title: of the figure.

    Returns:
        The figure, not saved.
    """
    figure = Figure(figsize=(6.6, 3.0 * len(pairs) + 0.6), layout="constrained")
    axes = figure.subplots(len(pairs), 2, squeeze=False)
    for row, (heading, matrices) in zip(axes, pairs.items(), strict=True):
        for axis, matrix in zip(row, matrices, strict=True):
            # Orange to purple is told apart with colour-vision deficiency; near white is near 0.
            image = axis.imshow(matrix, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[], xlabel="sample", ylabel="sample")
        row[0].set_title(plain(heading), fontsize=8, loc="left")
    figure.colorbar(image, ax=axes, shrink=0.6, label="cosine of two samples' gradients")
    figure.suptitle(plain(title), fontsize=9)
    return figure
