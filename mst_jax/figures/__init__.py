"""Pictures and pages of runs: a `draw_*` returns a matplotlib figure, `save_figure` writes it."""

from mst_jax.figures.covariance import draw_covariances
from mst_jax.figures.curves import draw_curves
from mst_jax.figures.degrees import draw_degrees, erdos_renyi_degrees
from mst_jax.figures.panels import draw_panels
from mst_jax.figures.run_report import Report, layer_table, write_report
from mst_jax.figures.style import PALETTE, save_figure
from mst_jax.figures.topology_figure import draw_topology, title_of

__all__ = [
    "PALETTE",
    "Report",
    "draw_covariances",
    "draw_curves",
    "draw_degrees",
    "draw_panels",
    "draw_topology",
    "erdos_renyi_degrees",
    "layer_table",
    "save_figure",
    "title_of",
    "write_report",
]
