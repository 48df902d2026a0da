"""The front door for Python: `mst_jax.train`, `train_many`, `load`, and the `Run` they return."""

from mst_jax.api.exporting import Exported, export_policy
from mst_jax.api.run import Run, Tables, load
from mst_jax.api.training import train, train_many

__all__ = ["Exported", "Run", "Tables", "export_policy", "load", "train", "train_many"]
