"""A run on disk: its folder, settings, checkpoints, metric files and masks, and who owns it."""

from mst_jax.runs.arrays import fingerprint
from mst_jax.runs.checkpoints import DamagedCheckpointError
from mst_jax.runs.config_file import read_settings, rebuild_settings, settings_values
from mst_jax.runs.folder import RunExistsError, is_blank, is_finished
from mst_jax.runs.settings import Settings
from mst_jax.runs.sinks import read_metrics
from mst_jax.runs.versions import describe_machine

__all__ = [
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
    "settings_values",
]
