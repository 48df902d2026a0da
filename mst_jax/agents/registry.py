"""The algorithms by name. A new one is one file and one line here."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mst_jax import topology
from mst_jax.agents.base import Agent
from mst_jax.agents.mrq import make_mrq
from mst_jax.agents.mrq_config import MRQConfig


class Entry(NamedTuple):
    """An algorithm's settings, a dataclass with the published defaults, and its constructor."""

    config: type
    make: Callable[..., Agent]  # (config, observation_size, action_size, total_steps, plans)


AGENTS: dict[str, Entry] = {
    "mrq": Entry(MRQConfig, make_mrq),
}


def default_config(name: str) -> Any:
    """The published settings of an algorithm; raises ValueError for an unknown name."""
    return _entry(name).config()


def make_agent(
    name: str,
    config: Any,
    observation_size: int,
    action_size: int,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> Agent:
    """Builds an algorithm for one seed; ValueError for an unknown name or impossible settings.

    `plans` replaces the topology plans that the configuration describes.
    """
    return _entry(name).make(config, observation_size, action_size, total_steps, plans)


def _entry(name: str) -> Entry:
    if name not in AGENTS:
        raise ValueError(f"agent {name!r} is unknown; choose from {', '.join(sorted(AGENTS))}")
    return AGENTS[name]
