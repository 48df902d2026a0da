"""Whether a checkpoint is of the settings that config.json has now."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mst_jax.names import dotted
from mst_jax.runs.checkpoints import Checkpoint
from mst_jax.runs.config_file import config_values
from mst_jax.runs.folder import CONFIG


def refuse_changed(checkpoint: Checkpoint, folder: Path) -> None:
    """Refuses a checkpoint of other settings than config.json has now.

    Without a record of them, as earlier versions wrote it, there is a warning instead.

    Raises:
        ValueError: the message names the first settings that differ.
    """
    if checkpoint.config is None:
        warnings.warn(
            f"the checkpoint of step {checkpoint.step:,} in {folder} does not say of which "
            f"settings it is: an earlier version wrote it; {CONFIG} is believed",
            stacklevel=2,
        )
        return
    different = _differences(checkpoint.config, config_values(folder))
    if different:
        raise ValueError(
            f"{folder / CONFIG} was changed since the run began: {different}; put it back, or "
            "begin another run with the new setting"
        )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The first settings in which two configurations differ, as one phrase; empty if in none."""
    old, new = dotted(before), dotted(after)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    phrases = [f"{name} is {new.get(name)!r}, was {old.get(name)!r}" for name in names[:3]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(phrases) + more
