"""The training loop, evaluation, checkpoints and metric files."""

from mst_jax.training.arrays import fingerprint
from mst_jax.training.checkpoints import DamagedCheckpointError
from mst_jax.training.memory import memory_bytes
from mst_jax.training.policy import Policy, Snapshot, load_policy, load_snapshot
from mst_jax.training.settings import (
    WANDB_MODES,
    Settings,
    describe_machine,
    read_settings,
    rebuild_settings,
)
from mst_jax.training.sinks import read_metrics
from mst_jax.training.trainer import (
    FINGERPRINT,
    INITIAL_TOPOLOGY,
    Job,
    Outcome,
    checkpoint_fingerprint,
    plan_resume,
    plan_run,
    prepare,
    train,
)

__all__ = [
    "FINGERPRINT",
    "INITIAL_TOPOLOGY",
    "WANDB_MODES",
    "DamagedCheckpointError",
    "Job",
    "Outcome",
    "Policy",
    "Settings",
    "Snapshot",
    "checkpoint_fingerprint",
    "describe_machine",
    "fingerprint",
    "load_policy",
    "load_snapshot",
    "memory_bytes",
    "plan_resume",
    "plan_run",
    "prepare",
    "read_metrics",
    "read_settings",
    "rebuild_settings",
    "train",
]
