"""Results of runs: reading them, and figures."""

from mst_jax.analysis.curves import Curve, Published, draw_curves, read_curve, read_published
from mst_jax.analysis.topology_figure import Layer, draw_topology, read_layers, title_of

__all__ = [
    "Curve",
    "Layer",
    "Published",
    "draw_curves",
    "draw_topology",
    "read_curve",
    "read_layers",
    "read_published",
    "title_of",
]
