"""A run on disk: its folder, settings, checkpoints, metric files and masks, and who owns it."""

from mst_jax.runs.arrays import fingerprint
from mst_jax.runs.checkpoints import DamagedCheckpointError
from mst_jax.runs.folder import RunExistsError, is_blank, is_finished
from mst_jax.runs.settings import (
    WANDB_MODES,
    Settings,
    describe_machine,
    read_settings,
    rebuild_settings,
)
from mst_jax.runs.sinks import read_metrics

__all__ = [
    "WANDB_MODES",
    "DamagedCheckpointError",
    "RunExistsError",
    "Settings",
    "describe_machine",
    "fingerprint",
    "is_blank",
    "is_finished",
    "read_metrics",
    "read_settings",
    "rebuild_settings",
]
