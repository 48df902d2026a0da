"""The algorithms by name. A new one is one file and one line here."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mst_jax import topology
from mst_jax.agents.actor_critic.config import DDPGConfig, SACConfig
from mst_jax.agents.actor_critic.ddpg import make_ddpg
from mst_jax.agents.actor_critic.sac import make_sac
from mst_jax.agents.base import Agent, Sizes
from mst_jax.agents.mr.config import MRQConfig, MRSACConfig
from mst_jax.agents.mr.mrq import make_mrq
from mst_jax.agents.mr.mrsac import make_mrsac
from mst_jax.names import nearest


class Entry(NamedTuple):
    """An algorithm's settings, a dataclass with the published defaults, and its constructor."""

    config: type
    make: Callable[..., Agent]  # (config, sizes, total_steps, plans)


AGENTS: dict[str, Entry] = {
    "ddpg": Entry(DDPGConfig, make_ddpg),
    "mrq": Entry(MRQConfig, make_mrq),
    "mrsac": Entry(MRSACConfig, make_mrsac),
    "sac": Entry(SACConfig, make_sac),
}


def default_config(name: str) -> Any:
    """The published settings of an algorithm; raises ValueError for an unknown name."""
    return _entry(name).config()


def make_agent(
    name: str,
    config: Any,
    sizes: Sizes,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> Agent:
    """Builds an algorithm for one seed; ValueError for an unknown name or impossible settings.

    `sizes` are the task's (`envs.Spec` has them too), `total_steps` the agent steps of the whole
    run, and `plans` replaces the topology plans that the configuration describes.
    """
    return _entry(name).make(config, sizes, total_steps, plans)


def _entry(name: str) -> Entry:
    if name not in AGENTS:
        raise ValueError(f"agent {name!r} is unknown: {nearest(name, AGENTS)}")
    return AGENTS[name]
