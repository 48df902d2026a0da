"""Agents: one file per algorithm, listed in the registry."""

from mst_jax.agents.base import Agent, AgentState, Clock, Feedback, Metrics
from mst_jax.agents.modules import REGIMES, ModuleConfig
from mst_jax.agents.mrq import MRQConfig, make_mrq
from mst_jax.agents.registry import AGENTS, default_config, make_agent

__all__ = [
    "AGENTS",
    "REGIMES",
    "Agent",
    "AgentState",
    "Clock",
    "Feedback",
    "MRQConfig",
    "Metrics",
    "ModuleConfig",
    "default_config",
    "make_agent",
    "make_mrq",
]
