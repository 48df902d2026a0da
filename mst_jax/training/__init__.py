"""The training loop, evaluation, checkpoints and metric files."""

from mst_jax.training.arrays import fingerprint
from mst_jax.training.checkpoints import DamagedCheckpointError
from mst_jax.training.policy import Policy, load_agent_states, load_policy
from mst_jax.training.settings import Settings, describe_machine, read_settings
from mst_jax.training.sinks import read_metrics
from mst_jax.training.trainer import Job, Outcome, plan_resume, plan_run, prepare, train

__all__ = [
    "DamagedCheckpointError",
    "Job",
    "Outcome",
    "Policy",
    "Settings",
    "describe_machine",
    "fingerprint",
    "load_agent_states",
    "load_policy",
    "plan_resume",
    "plan_run",
    "prepare",
    "read_metrics",
    "read_settings",
    "train",
]
