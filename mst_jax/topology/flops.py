"""Theoretical costs of a plan: floating-point operations and bytes.

Theoretical, because masks on dense arrays save neither: these are what hardware with unstructured
sparsity would need. Counts are the plan's exact integers, so no device is involved.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mst_jax.topology.planning import LeafPlan, Plan
from mst_jax.topology.scores import random


class Costs(NamedTuple):
    """Costs of a plan; operations are per sample, multiply and add counted separately.

    Attributes:
        inference: operations of a forward pass with the final topology.
        training: operations of a training step, averaged over training.
        dense_inference: the same without sparsity.
        dense_training: the same without sparsity.
        bytes: final weights, 4 bytes each, and 1 bit per position of a masked leaf.
        dense_bytes: 4 bytes per parameter.
        dense_share: share of ``dense_training`` in leaves without a mask: what no sparsity saves.
    """

    inference: float
    training: float
    dense_inference: float
    dense_training: float
    bytes: int
    dense_bytes: int
    dense_share: float

    @property
    def ceiling(self) -> float:
        """How many times fewer the operations of a training step could be, were zeros free."""
        return 1.0 / self.dense_share if self.dense_share else math.inf


def costs(plan: Plan, steps: int, positions: Mapping[str, int] | None = None) -> Costs:
    """Theoretical sparse FLOPs and bytes, rewiring amortised.

    A layer with n active weights costs 2n operations forward, 2n for the gradient of its input and
    2n for that of its active weights. A rewire that does not grow at random needs the gradient of
    all N positions once (Evci et al. 2020, appendix H; there a rewire replaces a training step), an
    averaged gradient at every step. Selection and element-wise operations are left out. Leaves that
    share their counts by score are costed as allocated, which matters only if ``positions`` differ.

    Args:
        plan: the plan.
        steps: all optimizer steps of training.
        positions: path -> how often a kernel is applied per sample (output pixels of a
            convolution); 1 by default.

    Returns:
        The costs; leaves with fewer than two axes, a tied one apart, count as bytes only.

    Raises:
        ValueError: ``positions`` of a leaf that the plan does not have.
    """
    times = positions or {}
    if strangers := sorted(times.keys() - plan.names.keys()):
        raise ValueError(f"positions of {strangers[0]!r}: the plan's leaves are {[*plan.names]}")
    inference = training = dense_inference = unmasked = 0.0
    stored = parameters = 0
    entries = plan.entries()
    for path in plan.names:
        shape = entries[path][2].shape if path in entries else plan.dense[path]
        size = math.prod(shape)
        parameters += size
        active, mean, dense_gradients, bits = size, float(size), 0.0, 0
        if path in entries:
            group, column, entry = entries[path]
            active, bits = int(plan.groups[group].table.target[-1, column]), size
            mean, dense_gradients = _over_training(plan, group, column, entry, steps)
        stored += 4 * active + math.ceil(bits / 8)
        if len(shape) - (path in plan.tied) < 2:
            continue
        work = 2.0 * times.get(path, 1)
        dense_inference += work * size
        unmasked += 0.0 if path in entries else work * size
        inference += work * active
        training += work * (3 * mean + (size - mean) * dense_gradients)
    share = unmasked / dense_inference if dense_inference else 1.0
    dense = (dense_inference, 3 * dense_inference)
    return Costs(inference, training, *dense, stored, 4 * parameters, share)


def _over_training(
    plan: Plan, group: int, column: int, entry: LeafPlan, steps: int
) -> tuple[float, float]:
    """Mean active weights over training, and share of steps that need the dense gradient."""
    timing, counts = plan.groups[group].timing, plan.groups[group].table.target[:, column]
    if timing is None:
        return float(counts[0]), 0.0
    rewires = np.array([step for step in timing.steps if step < steps])
    lasts = np.diff(np.concatenate([[0], rewires, [steps]]))
    mean = float(np.average(counts[: len(lasts)], weights=lasts)) if steps else float(counts[0])
    if not entry.grows:
        return mean, 0.0
    if entry.regime.average is not None:
        return mean, 1.0
    return mean, 0.0 if entry.regime.grow_score is random else len(rewires) / max(steps, 1)
