"""The training loop, evaluation, checkpoints and metric files."""

from mst_jax.training.arrays import fingerprint
from mst_jax.training.checkpoints import DamagedCheckpointError
from mst_jax.training.jobs import (
    Job,
    Program,
    make_program,
    plan_resume,
    plan_run,
    prepare,
    program_of,
    resume_together,
)
from mst_jax.training.memory import memory_bytes
from mst_jax.training.policy import Policy, Snapshot, load_policy, load_snapshot
from mst_jax.training.resuming import FINGERPRINT, is_blank, is_finished
from mst_jax.training.settings import (
    WANDB_MODES,
    Settings,
    describe_machine,
    read_settings,
    rebuild_settings,
)
from mst_jax.training.sinks import read_metrics
from mst_jax.training.trainer import (
    INITIAL_TOPOLOGY,
    Outcome,
    checkpoint_fingerprint,
    train,
    train_together,
)

__all__ = [
    "FINGERPRINT",
    "INITIAL_TOPOLOGY",
    "WANDB_MODES",
    "DamagedCheckpointError",
    "Job",
    "Outcome",
    "Policy",
    "Program",
    "Settings",
    "Snapshot",
    "checkpoint_fingerprint",
    "describe_machine",
    "fingerprint",
    "is_blank",
    "is_finished",
    "load_policy",
    "load_snapshot",
    "make_program",
    "memory_bytes",
    "plan_resume",
    "plan_run",
    "prepare",
    "program_of",
    "read_metrics",
    "read_settings",
    "rebuild_settings",
    "resume_together",
    "train",
    "train_together",
]
