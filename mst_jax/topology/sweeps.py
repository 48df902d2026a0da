"""Many budgets in one compiled program: runs under ``vmap`` that differ in their tables."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mst_jax.topology.count_tables import Table, Totals
from mst_jax.topology.planning import Group, LeafPlan, Plan
from mst_jax.topology.regime import Regime


def sweep(plans: Sequence[Plan]) -> tuple[Plan, tuple[Table | Totals, ...]]:
    """One plan for several that differ only in sparsity or drop fraction, and their stacked tables.

    Wrap the optimizer with the plan once, and ``vmap`` `mst_jax.topology.init` over keys and
    tables:

        plan, tables = topology.sweep([make_plan(s) for s in (0.3, 0.6, 0.9)])
        tx = topology.sparse(optax.adam(1e-3), plan)
        params, state = jax.vmap(lambda k, t: topology.init(tx, make_params(k), k, t))(keys, tables)

    Learning rates may differ too: build ``tx`` inside the mapped function. Interval, start and end
    are shared: they decide *whether* work happens.

    Args:
        plans: plans of the same leaves, timings, scores and structures.

    Returns:
        The plan to wrap with, and tables with a leading axis of plans.

    Raises:
        TypeError: something that is not a plan.
        ValueError: no plan, or plans that differ in more than their counts.
    """
    if strangers := [plan for plan in plans if not isinstance(plan, Plan)]:
        raise TypeError(
            f"sweep() takes plans made by topology.plan, got a {type(strangers[0]).__name__}"
        )
    if not plans:
        raise ValueError("sweep needs at least one plan")
    first = plans[0]
    for plan in plans[1:]:
        _require_fan_in(first, plan)
        if _fixed(plan) != _fixed(first):
            raise ValueError(
                "plans of a sweep may differ in sparsity and drop fraction only: give them the "
                "same rules, interval, start, end, scores, structure and storage"
            )
    groups = tuple(_joined(groups) for groups in zip(*(p.groups for p in plans), strict=True))
    tables = tuple(
        type(groups[0].table)(*map(np.stack, zip(*(g.table for g in groups), strict=True)))
        for groups in zip(*(p.groups for p in plans), strict=True)
    )
    return replace(first, groups=groups), tables


def _require_fan_in(first: Plan, plan: Plan) -> None:
    """Raises if a leaf in compact storage has not as many inputs in both plans."""
    for path, (_, _, entry) in first.entries().items():
        other = plan.entries().get(path)
        both = other is not None and entry.compact and other[2].compact
        if both and plan.fan_in(path) != first.fan_in(path):
            raise ValueError(
                f"plans of a sweep cannot differ in the number of weights that compact storage "
                f"keeps, as {path!r} does: give them one sparsity, or programs of their own"
            )


def _fixed(plan: Plan) -> object:
    """What must agree between the plans of a sweep."""
    return plan.dense, [
        (group.timing, [(e.path, e.shape, _on_device(e.regime)) for e in group.entries])
        for group in plan.groups
    ]


def _on_device(regime: Regime) -> object:
    return (
        regime.drop_score,
        regime.grow_score,
        regime.average,
        regime.average_square,
        regime.by_sign,
        regime.sharing,
        regime.structure,
        regime.storage,
        regime.draw,
    )


def _joined(groups: Sequence[Group]) -> Group:
    """The first group, whose leaves drop and grow if they do so in any of them."""

    def entry(*same: LeafPlan) -> LeafPlan:
        drops, grows = any(e.drops for e in same), any(e.grows for e in same)
        return replace(same[0], drops=drops, grows=grows)

    entries = (entry(*same) for same in zip(*(g.entries for g in groups), strict=True))
    return replace(groups[0], entries=tuple(entries))
