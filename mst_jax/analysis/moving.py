"""How a run's topology moved: densities, churn, exploration, dead neurons, survival, age."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from mst_jax.analysis import edges
from mst_jax.analysis.layers import short_name
from mst_jax.analysis.lines import Lines, Panels
from mst_jax.runs.history import TopologyHistory

# picture -> name of a line -> (masks (T, inputs, outputs)) -> (T,)
OVER_TIME: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "density": {"density": edges.densities},
    "churn": {"changed since the last snapshot": edges.churn, "ever active": edges.explored},
    "dead": {
        "outputs without incoming weights": edges.without_incoming,
        "inputs without outgoing weights": edges.without_outgoing,
    },
}


def movement(history: TopologyHistory) -> dict[str, Panels]:
    """Everything that the pictures of moving masks show; each file is read once per layer.

    Args:
        history: of a run.

    Returns:
        `density`, `churn`, `dead`, `survival` and `age`, a panel for each layer in each.
    """
    pictures: dict[str, dict[str, dict[str, Lines]]] = defaultdict(dict)
    for layer in history.layers:
        masks = history.masks(layer)
        for picture, functions in OVER_TIME.items():
            pictures[picture][short_name(layer)] = {
                name: Lines(history.steps, np.stack([function(seed) for seed in masks]))
                for name, function in functions.items()
            }
        pictures["survival"][short_name(layer)] = _survival(history, masks)
        pictures["age"][short_name(layer)] = {"active weights": _ages(history, masks)}
    return dict(pictures)


def _survival(history: TopologyHistory, masks: np.ndarray) -> dict[str, Lines]:
    """The initial weights and those that came at up to three of the later snapshots."""
    came = (masks[:, 1:] & ~masks[:, :-1]).any(axis=(0, 2, 3))
    births = 1 + np.flatnonzero(came[:-1])  # what came at the last one has no future yet
    later = sorted({int(births[i * len(births) // 3]) for i in range(3)}) if births.size else []
    names = {0: "there at the start", **{b: f"came by {history.steps[b]:,}" for b in later}}
    return {
        name: Lines(history.steps, np.stack([edges.survival(seed, born) for seed in masks]))
        for born, name in names.items()
    }


def _ages(history: TopologyHistory, masks: np.ndarray) -> Lines:
    """Share of the weights active at the end that are at least as old as the horizontal axis."""
    grid = np.unique(history.steps[-1] - history.steps)
    found = [edges.ages(seed, history.steps) for seed in masks]
    shares = [
        (ages[:, None] >= grid).mean(axis=0) if ages.size else np.full(len(grid), np.nan)
        for ages in found
    ]
    return Lines(grid, np.stack(shares))
