"""Plasticity, rank and gradient metrics, computed on the device for one seed; vmap them."""

from mst_jax.diagnostics.gradients import (
    gradient_covariance,
    interference,
    mean_gradient,
    sample_gradients,
    whole,
)
from mst_jax.diagnostics.metrics import (
    BATCH_SIZE,
    METRICS,
    Evidence,
    Metric,
    diagnose,
    evidence_of,
    find_metrics,
    measured,
)
from mst_jax.diagnostics.rank import effective_rank, srank
from mst_jax.diagnostics.simplicity import complexity, simplicity_score
from mst_jax.diagnostics.units import active_fraction, dormant_percentage

__all__ = [
    "BATCH_SIZE",
    "METRICS",
    "Evidence",
    "Metric",
    "active_fraction",
    "complexity",
    "diagnose",
    "dormant_percentage",
    "effective_rank",
    "evidence_of",
    "find_metrics",
    "gradient_covariance",
    "interference",
    "mean_gradient",
    "measured",
    "sample_gradients",
    "simplicity_score",
    "srank",
    "whole",
]
