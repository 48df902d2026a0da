"""Agents: one file per algorithm, listed in the registry."""

from mst_jax.agents.base import Agent, AgentState, Clock, Feedback, Metrics, Numbers
from mst_jax.agents.modules import REGIMES, ModuleConfig
from mst_jax.agents.mrq import make_mrq
from mst_jax.agents.mrq_config import MRQConfig
from mst_jax.agents.registry import AGENTS, default_config, make_agent
from mst_jax.agents.sweeps import SWEPT, sweep

__all__ = [
    "AGENTS",
    "REGIMES",
    "SWEPT",
    "Agent",
    "AgentState",
    "Clock",
    "Feedback",
    "MRQConfig",
    "Metrics",
    "ModuleConfig",
    "Numbers",
    "default_config",
    "make_agent",
    "make_mrq",
    "sweep",
]
