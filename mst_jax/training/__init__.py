"""The host's conduct of training: what is to be trained, the loop, and the policies that come."""

from mst_jax.training.grouping import grouped, together_key
from mst_jax.training.jobs import (
    Job,
    Program,
    make_program,
    plan_in,
    plan_resume,
    plan_run,
    prepare,
    program_of,
    resume_together,
    unfinished,
)
from mst_jax.training.memory import light_bytes, memory_bytes
from mst_jax.training.policy import Policy, Snapshot, load_policy, load_snapshot
from mst_jax.training.trainer import Outcome, checkpoint_fingerprint, train, train_together

__all__ = [
    "Job",
    "Outcome",
    "Policy",
    "Program",
    "Snapshot",
    "checkpoint_fingerprint",
    "grouped",
    "light_bytes",
    "load_policy",
    "load_snapshot",
    "make_program",
    "memory_bytes",
    "plan_in",
    "plan_resume",
    "plan_run",
    "prepare",
    "program_of",
    "resume_together",
    "together_key",
    "train",
    "train_together",
    "unfinished",
]
