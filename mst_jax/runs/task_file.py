"""task.json: what a run's task shows and takes, so that results are read without its suite."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mst_jax.envs import Action, Continuous, Discrete, Observation, Spec
from mst_jax.runs.files import replace_text
from mst_jax.runs.folder import TASK
from mst_jax.runs.json_file import read_json

ACTIONS: dict[str, type[Action]] = {"continuous": Continuous, "discrete": Discrete}


def write_spec(folder: Path, spec: Spec) -> None:
    """Writes the spec of a run's task."""
    (kind,) = (name for name, kind in ACTIONS.items() if isinstance(spec.action, kind))
    action = {"kind": kind, **dataclasses.asdict(spec.action)}
    values = {**spec._asdict(), "observation": spec.observation._asdict(), "action": action}
    text = json.dumps(values, indent=2, default=lambda number: number.item())  # NumPy's numbers
    replace_text(folder / TASK, text + "\n")


def read_spec(folder: Path) -> Spec | None:
    """Reads the spec of a run's task; None for a run of before 2026-11-27, which has no file.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / TASK
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        observation = Observation(**_tuples(values["observation"]))
        action = _tuples(values["action"])
        space = ACTIONS[action.pop("kind")](**action)
        parts: dict[str, Any] = {"observation": observation, "action": space}
        return Spec(**{**values, **parts})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
