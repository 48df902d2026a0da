"""Rank, dormancy, norms and other signs of plasticity over time, from a run's metric rows."""

import re
from collections import defaultdict

import numpy as np

from mst_jax.analysis.lines import Lines, Panels

# Metrics by what their names contain, in the order in which they are shown.
SIGNS = ("rank", "dormant", "active_fraction", "norm", "cosine", "opposed", "dead", "bias")


def plasticity(rows: list[list[dict]]) -> Panels:
    """One panel for each metric with a sign of plasticity in its name, one line for each module.

    Args:
        rows: of every seed; metrics are named module/metric.

    Returns:
        metric -> module -> lines; empty if the rows have none of them.
    """
    named = {name for seed in rows for row in seed for name in row if "/" in name}
    panels: dict[str, dict[str, Lines]] = defaultdict(dict)
    for sign in SIGNS:
        for name in sorted(named):
            module, _, metric = name.partition("/")
            if re.search(sign, metric) and module not in panels.get(metric, {}):
                panels[metric][module] = lines_of(rows, name)
    return dict(panels)


def lines_of(rows: list[list[dict]], name: str) -> Lines:
    """One metric of all seeds; NaN where a seed has no row or a value that was not finite."""
    found = [{row["step"]: row[name] for row in seed if name in row} for seed in rows]
    steps = sorted({step for seed in found for step in seed})
    values = [[seed.get(step) for step in steps] for seed in found]
    return Lines(np.array(steps), np.array(values, float))
