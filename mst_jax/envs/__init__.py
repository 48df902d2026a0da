"""Environments of every suite behind two small protocols; importing this never imports jax."""

from mst_jax.envs.base import (
    HostEnv,
    HostTask,
    HostVectorEnv,
    JaxEnv,
    Spec,
    Timestep,
)
from mst_jax.envs.registry import make, suites, tasks

__all__ = [
    "HostEnv",
    "HostTask",
    "HostVectorEnv",
    "JaxEnv",
    "Spec",
    "Timestep",
    "make",
    "suites",
    "tasks",
]
