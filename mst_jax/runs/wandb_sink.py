"""Metrics to Weights & Biases, when asked for: one wandb run per seed, grouped by run folder."""

import dataclasses
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mst_jax.runs.settings import Settings
from mst_jax.runs.sinks import read_metrics, scalars

RECORD = "wandb.json"
PROJECT = "mst_jax"  # unless the environment variable WANDB_PROJECT names another


def check_wandb(mode: str) -> None:
    """Raises ValueError when the package is missing, or nobody is logged in for mode `online`."""
    if mode == "off":
        return
    try:
        from wandb import login  # an import of wandb alone also finds a folder of that name
        from wandb.errors import UsageError
    except ImportError as error:
        raise ValueError(
            f"wandb={mode} needs the package wandb: pip install 'mst_jax[wandb]'"
        ) from error
    if mode == "online":
        try:
            login()
        except UsageError as error:
            raise ValueError(f"wandb=online: {error} Or choose wandb=offline") from error


class WandB:
    """Sends each row of a run once, also when resuming writes it to the metric files again.

    RUN/wandb.json holds what names the runs in wandb and how many rows of each seed were sent.
    """

    def __init__(self, settings: Settings, folder: Path, seed_folders: Sequence[Path]) -> None:
        """Opens or continues the runs; the metric files are cut back already."""
        import wandb

        self._path = folder / RECORD
        self._record = self._read(len(seed_folders))
        self._write_record()
        self._position = [len(read_metrics(seed_folder)) for seed_folder in seed_folders]
        quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        token, name = self._record["id"], settings.folder_name
        self._runs = [
            wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                group=f"{name}-{token}",
                name=f"{name}-seed{seed}",
                id=f"{token}-{seed}",
                resume="allow",
                mode=settings.wandb,
                dir=folder,
                config={**dataclasses.asdict(settings), "seed": seed},
                reinit="create_new",
                settings=quiet,
            )
            for seed in settings.seed_list
        ]
        for run in self._runs:
            # wandb's own step counts rows and cannot go back; the axis of the charts is ours.
            run.define_metric("*", step_metric="step")

    def write(self, seed_index: int, row: Mapping[str, Any]) -> None:
        """Sends the numbers of a row as kind/metric, unless it was sent before."""
        self._position[seed_index] += 1
        if self._position[seed_index] <= self._record["rows"][seed_index]:
            return
        self._runs[seed_index].log({"step": row["step"], **scalars(row)})
        self._record["rows"][seed_index] = self._position[seed_index]
        self._write_record()

    def sync(self) -> None:
        """See `Sink`: wandb writes by itself, and what a crash loses is in the metric files."""

    def close(self) -> None:
        """Ends the runs; resuming opens them again."""
        for run in self._runs:
            run.finish()

    def _read(self, num_seeds: int) -> dict[str, Any]:
        if self._path.exists():
            return json.loads(self._path.read_text(encoding="utf-8"))
        return {"id": uuid.uuid4().hex[:8], "rows": [0] * num_seeds}

    def _write_record(self) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._record) + "\n", encoding="utf-8")
        partial.replace(self._path)
