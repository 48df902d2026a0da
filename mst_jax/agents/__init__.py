"""Agents: one file per algorithm, listed in the registry."""

from mst_jax.agents.actor_critic.config import DDPGConfig, SACConfig
from mst_jax.agents.base import (
    ROLES,
    Agent,
    AgentState,
    Clock,
    Experience,
    Feedback,
    Latest,
    Memory,
    Metrics,
    Module,
    Numbers,
    Occasional,
    Probe,
    Review,
    Role,
    Sizes,
    explorer,
    player,
)
from mst_jax.agents.check import check
from mst_jax.agents.costs import TrainingCosts, training_costs
from mst_jax.agents.mr.config import MRQConfig, MRSACConfig
from mst_jax.agents.parts.modules import ModuleConfig, idle_settings, modules_of, roles_of
from mst_jax.agents.pixels.config import DrQv2Config
from mst_jax.agents.rainbow.config import DERConfig
from mst_jax.agents.registry import AGENTS, default_config, make_agent
from mst_jax.agents.scaling import SIMBA_SIZES, scaled, size_factors
from mst_jax.agents.sweeps import SWEPT, shared_settings, sweep

__all__ = [
    "AGENTS",
    "ROLES",
    "SIMBA_SIZES",
    "SWEPT",
    "Agent",
    "AgentState",
    "Clock",
    "DDPGConfig",
    "DERConfig",
    "DrQv2Config",
    "Experience",
    "Feedback",
    "Latest",
    "MRQConfig",
    "MRSACConfig",
    "Memory",
    "Metrics",
    "Module",
    "ModuleConfig",
    "Numbers",
    "Occasional",
    "Probe",
    "Review",
    "Role",
    "SACConfig",
    "Sizes",
    "TrainingCosts",
    "check",
    "default_config",
    "explorer",
    "idle_settings",
    "make_agent",
    "modules_of",
    "player",
    "roles_of",
    "scaled",
    "shared_settings",
    "size_factors",
    "sweep",
    "training_costs",
]
