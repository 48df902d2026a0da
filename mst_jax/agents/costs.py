"""What sparsity could save of an agent's training, in theory: its modules' operations added up."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from mst_jax import topology
from mst_jax.agents.base import Agent


class TrainingCosts(NamedTuple):
    """Operations of training, all modules together; masks on dense arrays save none of them.

    Attributes:
        shares: module -> its share of the operations of dense training.
        saving: how many times fewer there are if zeros cost nothing, rewires included.
        ceiling: the same if all masked leaves were empty: more, no sparsity saves.
    """

    shares: Mapping[str, float]
    saving: float
    ceiling: float

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        text = f"operations of training: {shares or 'none'}"
        if self.ceiling == 1.0:
            return text
        most = f", at most {self.ceiling:.2f} times" if math.isfinite(self.ceiling) else ""
        return f"{text}; were zeros free, {self.saving:.2f} times fewer{most}"


def training_costs(agent: Agent) -> TrainingCosts:
    """Theoretical savings of an agent's plans over its run; see `topology.costs`.

    Every module counts by its updates and by what each costs (`Module.passes`), a convolution by
    the places that it is applied to (`Module.positions`).

    Args:
        agent: from `make_agent`.

    Returns:
        Shares and ratios.
    """
    own = {
        name: topology.costs(one.plan, one.updates, one.positions)
        for name, one in agent.modules.items()
    }
    times = {name: one.updates * one.passes for name, one in agent.modules.items()}
    dense = {name: times[name] * cost.dense_training for name, cost in own.items()}
    total = sum(dense.values())
    if not total:  # no kernels
        return TrainingCosts({}, 1.0, 1.0)
    left = sum(times[name] * cost.training for name, cost in own.items())
    fixed = sum(dense[name] * cost.dense_share for name, cost in own.items())
    return TrainingCosts(
        {name: part / total for name, part in dense.items()},
        total / left,
        total / fixed if fixed else math.inf,
    )
