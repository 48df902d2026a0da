"""Launcher flags made from the settings of a run: a new setting is a flag without a line here."""

import dataclasses
from typing import Any

from absl import flags

from mst_jax.runs.settings import ABOUT, FIELDS

flags.disclaim_key_flags()  # flags belong to the launcher that asks for them; --help lists those

_OWN: Any = dataclasses.MISSING
_DEFINE: dict[Any, Any] = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
    str: flags.DEFINE_string,
    "choice": flags.DEFINE_enum,
}


def define_setting(name: str, default: Any = _OWN, text: str = "") -> flags.FlagHolder:
    """Defines the flag of one setting.

    Args:
        name: a field of `Settings`.
        default: instead of the setting's own.
        text: instead of the setting's own description.
    """
    about, field = ABOUT[name], FIELDS[name]
    default = field.default if default is _OWN else default
    text = text or about.text
    if about.choices:
        return _DEFINE["choice"](name, default, about.choices, text)
    if field.type in (int, float):
        limits = {"lower_bound": about.least, "upper_bound": about.most}
        return _DEFINE[field.type](name, default, text, **limits)
    return _DEFINE[field.type](name, default, text)


def define_settings() -> dict[str, flags.FlagHolder]:
    """Defines a flag for every setting but the agent's configuration: {name: flag}."""
    return {name: define_setting(name) for name in ABOUT}
