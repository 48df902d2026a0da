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
from mst_jax.envs.registry import SUITES, make, tasks

__all__ = [
    "SUITES",
    "WORKER_TIMEOUT",
    "EnvironmentFailedError",
    "HostEnv",
    "HostTask",
    "HostVectorEnv",
    "JaxEnv",
    "Spec",
    "Timestep",
    "make",
    "tasks",
]
