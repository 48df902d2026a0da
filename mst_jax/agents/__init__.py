"""Agents: one file per algorithm, listed in the registry."""

from mst_jax.agents.actor_critic.config import DDPGConfig, SACConfig
from mst_jax.agents.base import Agent, AgentState, Clock, Feedback, Metrics, Numbers, Probe, Sizes
from mst_jax.agents.mr.config import MRQConfig, MRSACConfig
from mst_jax.agents.parts.modules import ModuleConfig
from mst_jax.agents.registry import AGENTS, default_config, make_agent
from mst_jax.agents.scaling import SIMBA_SIZES, scaled, size_factors
from mst_jax.agents.sweeps import SWEPT, shared_settings, sweep

__all__ = [
    "AGENTS",
    "SIMBA_SIZES",
    "SWEPT",
    "Agent",
    "AgentState",
    "Clock",
    "DDPGConfig",
    "Feedback",
    "MRQConfig",
    "MRSACConfig",
    "Metrics",
    "ModuleConfig",
    "Numbers",
    "Probe",
    "SACConfig",
    "Sizes",
    "default_config",
    "make_agent",
    "scaled",
    "shared_settings",
    "size_factors",
    "sweep",
]
