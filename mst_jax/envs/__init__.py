"""Environments of every suite behind two small protocols; importing this never imports jax."""

from mst_jax.envs.base import (
    WORKER_TIMEOUT,
    EnvironmentFailedError,
    HostEnv,
    HostTask,
    HostVectorEnv,
    JaxEnv,
    Spec,
    Timestep,
)
from mst_jax.envs.registry import make, suites, tasks

__all__ = [
    "WORKER_TIMEOUT",
    "EnvironmentFailedError",
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
