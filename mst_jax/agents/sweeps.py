"""Several configurations of an agent in one program, under `vmap` (docs/design.md rule 4)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import topology
from mst_jax.agents.base import Agent, Numbers, Sizes
from mst_jax.agents.parts.modules import roles_of
from mst_jax.agents.registry import make_agent
from mst_jax.envs import Spec

SWEPT = ("sparsity", "drop_fraction", "learning_rate")  # settings of a module that are arrays


def sweep(
    name: str, configs: Sequence[Any], sizes: Sizes | Spec, total_steps: int
) -> tuple[Agent, Numbers]:
    """One agent for configurations that differ in sparsity, drop fraction or learning rate.

    Args:
        name: of the algorithm.
        configs: one configuration per run.
        sizes: of the task.
        total_steps: agent steps of every run.

    Returns:
        The agent, and numbers with a leading run axis: `vmap` its `init` over keys and numbers.

    Raises:
        ValueError: no configuration, or two that differ in anything else.
    """
    if not configs:
        raise ValueError("a sweep needs at least one configuration")
    agents = [make_agent(name, config, sizes, total_steps) for config in configs]
    _check_alike(configs)
    plans, tables = {}, {}
    for module in agents[0].plans:
        plans[module], stacked = topology.sweep([agent.plans[module] for agent in agents])
        tables[module] = stacked
    rates = {
        module: jnp.array([getattr(config, module).learning_rate for config in configs])
        for module in plans
    }
    rates = {module: own for module, own in rates.items() if (own != own[0]).any()}
    agent, numbers = make_agent(name, configs[0], sizes, total_steps, plans), Numbers(tables, rates)
    one = jax.tree.map(lambda leaf: leaf[0], numbers)
    jax.eval_shape(agent.init, jax.random.key(0), one)  # refuses an optimizer without that leaf
    return agent, numbers


def shared_settings(config: Any) -> dict[str, Any]:
    """The settings, by dotted name, in which all configurations of one program agree.

    The arrays of compact storage are as large as the sparsity says, so it is one of them there.
    """
    fixed, modules = {}, roles_of(config)
    for key, value in dataclasses.asdict(config).items():
        if key in modules:
            swept = SWEPT[1:] if value["storage"] == "compact" else SWEPT
            fixed |= {f"{key}.{name}": own for name, own in value.items() if name not in swept}
        else:
            fixed[key] = value
    return fixed


def _check_alike(configs: Sequence[Any]) -> None:
    first = shared_settings(configs[0])
    for config in configs[1:]:
        other = shared_settings(config)
        different = [key for key in first if first[key] != other[key]]
        if different:
            raise ValueError(
                f"runs of one program may differ in a module's {', '.join(SWEPT)} only; "
                f"these differ in {different[0]}"
            )
