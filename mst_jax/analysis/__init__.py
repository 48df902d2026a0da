"""Results of runs: reading them, and figures."""

from mst_jax.analysis.curves import Curve, draw_curves, read_curve
from mst_jax.analysis.topology_figure import Layer, draw_topology, read_layers

__all__ = ["Curve", "Layer", "draw_curves", "draw_topology", "read_curve", "read_layers"]
