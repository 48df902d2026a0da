"""The ReDo baseline between chunks: what a seed's units do on a batch, and which begin again."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from mst_jax.agents import Agent, Experience
from mst_jax.diagnostics import BATCH_SIZE
from mst_jax.program.cache import kept
from mst_jax.program.sharding import LOOP, over_devices, seed_mesh, seeds_per_device
from mst_jax.program.state import LoopState, Purpose, between_steps, keys_for, over_seeds


def check_recyclable(agent: Agent) -> None:
    """Raises ValueError for an agent whose dormant units cannot be found or recycled."""
    if agent.probe is None or agent.recycle is None:
        raise ValueError(
            "recycle_every needs an agent that has `probe` and `recycle`; leave the setting out"
        )
    for name, module in agent.modules.items():
        if any(entry.compact for _, _, entry in module.plan.entries().values()):
            raise ValueError(
                f"recycle_every draws whole kernels anew, and {name} is in compact storage: choose "
                f"{name}.storage=masked, or leave recycle_every out"
            )


@kept
def make_recycle(
    agent: Agent, num_seeds: int, threshold: float
) -> Callable[[LoopState], LoopState]:
    """Dormant units of all seeds begin again, each seed's by a fresh batch of its own; jitted.

    Args:
        agent: one-seed functions, recyclable.
        num_seeds: S.
        threshold: share of its layer's mean activity up to which a unit is dormant.

    Returns:
        Loop -> loop; the argument is donated.
    """
    probe, recycle = agent.probe, agent.recycle
    assert probe is not None
    assert recycle is not None
    mesh = seed_mesh(num_seeds)

    def of_seed(state: Any, experience: Experience, key: jax.Array) -> Any:
        look, draw = jax.random.split(key)
        probes = probe(state, experience, look, BATCH_SIZE)
        activities = {name: one.activity for name, one in probes.items()}
        return recycle(state, activities, draw, threshold)

    of_seeds = over_seeds(of_seed, seeds_per_device(num_seeds, mesh))

    def of_run(loop: LoopState) -> LoopState:
        keys = keys_for(loop.keys, Purpose.RECYCLE, loop.clock.step)
        return replace(loop, agent=of_seeds(loop.agent, between_steps(loop), keys))

    return jax.jit(over_devices(of_run, mesh, (LOOP,), LOOP), donate_argnums=0)
