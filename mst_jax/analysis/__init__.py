"""Results of runs: reading them, statistics, and figures."""

from mst_jax.analysis.curves import Curve, Published, draw_curves, read_curve, read_published
from mst_jax.analysis.normalised import normalised, unit_of
from mst_jax.analysis.results_table import (
    Cost,
    Row,
    by_task,
    cost_of,
    last_rows,
    read_results,
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
)
from mst_jax.analysis.topology_figure import Layer, draw_topology, read_layers, title_of

__all__ = [
    "Cost",
    "Curve",
    "Estimate",
    "Layer",
    "Paired",
    "Published",
    "Row",
    "by_task",
    "cost_of",
    "draw_curves",
    "draw_topology",
    "estimate",
    "iqm",
    "last_rows",
    "mean",
    "median",
    "normalised",
    "optimality_gap",
    "paired",
    "performance_profile",
    "probability_of_improvement",
    "read_curve",
    "read_layers",
    "read_published",
    "read_results",
    "seeds_needed",
    "title_of",
    "unit_of",
    "updates_at",
    "write_csv",
]
