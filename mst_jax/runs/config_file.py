"""config.json: a run's settings on disk, also those that earlier versions wrote.

Every file has the number of its schema; the first versions wrote none, which counts as 0. A setting
that a file lacks did not exist when it was written: `About.before` says what runs did then, and
of an agent's configuration the published value holds. So a new setting with a default needs nothing
here. Who changes what an old value means raises `SCHEMA`, and translates it in `rebuild_settings`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mst_jax.agents import default_config
from mst_jax.names import nearest, with_article
from mst_jax.runs.files import replace_text
from mst_jax.runs.folder import CONFIG, VERSIONS
from mst_jax.runs.json_file import read_json
from mst_jax.runs.settings import ABOUT, FIELDS, Settings
from mst_jax.runs.versions import describe_machine

SCHEMA = 1
# Without these, which all versions wrote, it is not known what a run was.
NEEDED = ("agent", "task", "recipe", "config", "steps", "seed", "seeds")


def settings_values(settings: Settings) -> dict[str, Any]:
    """Settings as config.json holds them."""
    return {"schema": SCHEMA, **dataclasses.asdict(settings)}


def write_settings(folder: Path, settings: Settings) -> None:
    """Writes versions.json and then config.json, which makes a folder a run folder."""
    contents = {VERSIONS: describe_machine(), CONFIG: settings_values(settings)}
    for name, values in contents.items():
        replace_text(folder / name, json.dumps(values, indent=2) + "\n")


def config_values(folder: Path) -> dict[str, Any]:
    """What config.json holds, as it is there."""
    return read_json(folder / CONFIG)


def read_settings(folder: Path) -> Settings:
    """Reads config.json; ValueError when the folder is not a run or holds what is not known."""
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is not a run folder: it has no {CONFIG}")
    try:
        return rebuild_settings(config_values(folder))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a run's settings: {error}") from error


def rebuild_settings(raw: dict[str, Any]) -> Settings:
    """The settings that `settings_values` made a dictionary of, in this version or an earlier one.

    Raises:
        TypeError: a value of another type.
        ValueError: an unknown agent or field, one that every version wrote is missing, or a newer
            schema.
    """
    values = dict(raw)
    schema = values.pop("schema", 0)
    _require_type("schema", schema, int)
    if schema > SCHEMA:
        raise ValueError(
            f"a newer version wrote them (schema {schema}, this one knows {SCHEMA}); upgrade"
        )
    missing = [name for name in NEEDED if name not in values]
    if missing:
        raise ValueError(f"there is no {missing[0]!r}")
    _refuse_unknown("", values, {"config", *ABOUT})
    _require_type("config", values["config"], dict)
    for name, value in values.items():
        if name != "config":
            _require_type(name, value, FIELDS[name].type)
    earlier = {name: about.before for name, about in ABOUT.items()}
    config = _rebuild(default_config(values["agent"]), values["config"], "config.")
    return Settings(**{**earlier, **values, "config": config})


def _rebuild(default: Any, values: dict[str, Any], prefix: str) -> Any:
    """A (nested) configuration dataclass with these values; the others are those of `default`."""
    _refuse_unknown(prefix, values, {field.name for field in dataclasses.fields(default)})
    changed = {}
    for name, value in values.items():
        own = getattr(default, name)
        nested = dataclasses.is_dataclass(own)
        if own is not None:
            _require_type(f"{prefix}{name}", value, dict if nested else type(own))
        changed[name] = _rebuild(own, value, f"{prefix}{name}.") if nested else value
    return dataclasses.replace(default, **changed)


def _refuse_unknown(prefix: str, values: dict[str, Any], known: set[str]) -> None:
    for name in sorted(values.keys() - known):
        raise ValueError(f"there is no setting {prefix}{name}: {nearest(name, sorted(known))}")


def _require_type(name: str, value: Any, kind: Any) -> None:
    """Raises TypeError unless a value has a setting's type; a whole number will do for a float."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{name} is {value!r}, not {with_article(kind.__name__)}")
