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
    vector_spec,
)
from mst_jax.envs.check import check
from mst_jax.envs.host.task import host_task
from mst_jax.envs.registry import SUITES, make, tasks
from mst_jax.envs.spaces import Action, Continuous, Discrete, Observation

__all__ = [
    "SUITES",
    "WORKER_TIMEOUT",
    "Action",
    "Continuous",
    "Discrete",
    "EnvironmentFailedError",
    "HostEnv",
    "HostTask",
    "HostVectorEnv",
    "JaxEnv",
    "Observation",
    "Spec",
    "Timestep",
    "check",
    "host_task",
    "make",
    "tasks",
    "vector_spec",
]
