"""The algorithms by name. A new one is one file and one line here."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mst_jax.agents.base import Agent
from mst_jax.agents.mrq import MRQConfig, make_mrq


class Entry(NamedTuple):
    """An algorithm's settings, a dataclass with the published defaults, and its constructor."""

    config: type
    make: Callable[..., Agent]  # (config, observation_size, action_size, total_steps)


AGENTS: dict[str, Entry] = {
    "mrq": Entry(MRQConfig, make_mrq),
}


def default_config(name: str) -> Any:
    """The published settings of an algorithm; raises ValueError for an unknown name."""
    return _entry(name).config()


def make_agent(
    name: str, config: Any, observation_size: int, action_size: int, total_steps: int
) -> Agent:
    """Builds an algorithm for one seed; ValueError for an unknown name or impossible settings."""
    return _entry(name).make(config, observation_size, action_size, total_steps)


def _entry(name: str) -> Entry:
    if name not in AGENTS:
        raise ValueError(f"agent {name!r} is unknown; choose from {', '.join(sorted(AGENTS))}")
    return AGENTS[name]
