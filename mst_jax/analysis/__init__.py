"""Results of runs: reading them, statistics, and figures."""

from mst_jax.analysis import edges
from mst_jax.analysis.covariance import draw_covariances, read_covariances
from mst_jax.analysis.curves import (
    Curve,
    Published,
    draw_curves,
    read_curve,
    read_diverged,
    read_published,
)
from mst_jax.analysis.degrees import draw_degrees, erdos_renyi_degrees
from mst_jax.analysis.history import TopologyHistory, read_history
from mst_jax.analysis.movement import movement
from mst_jax.analysis.normalised import normalised, score_range
from mst_jax.analysis.panels import Lines, draw_panels
from mst_jax.analysis.plasticity import plasticity
from mst_jax.analysis.report import Report, layer_table, write_report
from mst_jax.analysis.results_table import (
    Cost,
    Row,
    by_task,
    cost_of,
    cost_of_agent,
    last_rows,
    read_results,
    spec_of,
    updates_at,
    write_csv,
)
from mst_jax.analysis.statistics import (
    Estimate,
    Paired,
    estimate,
    iqm,
    mean,
    median,
    optimality_gap,
    paired,
    performance_profile,
    probability_of_improvement,
    seeds_needed,
    wins,
    with_worst,
)
from mst_jax.analysis.topology_figure import Layer, draw_topology, read_layers, title_of

__all__ = [
    "Cost",
    "Curve",
    "Estimate",
    "Layer",
    "Lines",
    "Paired",
    "Published",
    "Report",
    "Row",
    "TopologyHistory",
    "by_task",
    "cost_of",
    "cost_of_agent",
    "draw_covariances",
    "draw_curves",
    "draw_degrees",
    "draw_panels",
    "draw_topology",
    "edges",
    "erdos_renyi_degrees",
    "estimate",
    "iqm",
    "last_rows",
    "layer_table",
    "mean",
    "median",
    "movement",
    "normalised",
    "optimality_gap",
    "paired",
    "performance_profile",
    "plasticity",
    "probability_of_improvement",
    "read_covariances",
    "read_curve",
    "read_diverged",
    "read_history",
    "read_layers",
    "read_published",
    "read_results",
    "score_range",
    "seeds_needed",
    "spec_of",
    "title_of",
    "updates_at",
    "wins",
    "with_worst",
    "write_csv",
    "write_report",
]
