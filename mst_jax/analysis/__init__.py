"""Results of runs in numbers: reading them, statistics and tables."""

from mst_jax.analysis import edges
from mst_jax.analysis.curves import (
    Curve,
    Published,
    read_curve,
    read_published,
    read_rows,
)
from mst_jax.analysis.layers import Layer, Layers, read_layers
from mst_jax.analysis.lines import Lines, Panels
from mst_jax.analysis.moving import movement
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
from mst_jax.analysis.scores import meaning, normalised, score_range
from mst_jax.analysis.signs import plasticity
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
from mst_jax.analysis.training_returns import TrainingReturns, read_training_returns
from mst_jax.runs.history import TopologyHistory, read_history

__all__ = [
    "Cost",
    "Curve",
    "Estimate",
    "Layer",
    "Layers",
    "Lines",
    "Paired",
    "Panels",
    "Published",
    "Row",
    "TopologyHistory",
    "TrainingReturns",
    "by_task",
    "cost_of",
    "cost_of_agent",
    "edges",
    "estimate",
    "iqm",
    "last_rows",
    "mean",
    "meaning",
    "median",
    "movement",
    "normalised",
    "optimality_gap",
    "paired",
    "performance_profile",
    "plasticity",
    "probability_of_improvement",
    "read_curve",
    "read_diverged",
    "read_history",
    "read_layers",
    "read_published",
    "read_results",
    "read_rows",
    "read_training_returns",
    "score_range",
    "seeds_needed",
    "spec_of",
    "updates_at",
    "wins",
    "with_worst",
    "write_csv",
]
