"""What sparsity could save of an agent's training, in theory: its modules' operations added up."""

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


def training_costs(agent: Agent) -> TrainingCosts:
    """Theoretical savings of an agent's plans over its run; see `topology.costs`.

    Every module counts by its updates and by what each costs (`Module.passes`). Convolutions count
    as one position.

    Args:
        agent: from `make_agent`.

    Returns:
        Shares and ratios.
    """
    own = {name: topology.costs(one.plan, one.updates) for name, one in agent.modules.items()}
    times = {name: one.updates * one.passes for name, one in agent.modules.items()}
    dense = {name: times[name] * cost.dense_training for name, cost in own.items()}
    total = sum(dense.values())
    left = sum(times[name] * cost.training for name, cost in own.items())
    fixed = sum(dense[name] * cost.dense_share for name, cost in own.items())
    return TrainingCosts(
        {name: part / total for name, part in dense.items()},
        total / left,
        total / fixed if fixed else float("inf"),
    )
