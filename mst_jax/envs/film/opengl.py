"""Which OpenGL draws without a window: EGL or OSMesa, by MUJOCO_GL or by what is installed."""

import ctypes.util
import os

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


def named() -> str | None:
    """`egl` or `osmesa` if MUJOCO_GL names it, else None.

    dm_control imports the one named as soon as it is imported itself, so this is asked before.

    Raises:
        ValueError: if it is not installed.
    """
    name = os.environ.get("MUJOCO_GL", "").lower()
    if name not in LIBRARIES:
        return None
    if ctypes.util.find_library(LIBRARIES[name]) is None:
        raise ValueError(
            f"MUJOCO_GL={name}, but {LIBRARIES[name]} is not installed: unset MUJOCO_GL, or "
            f"apt-get install {'libosmesa6' if name == 'osmesa' else 'libegl1'}"
        )
    return name


def installed() -> str | None:
    """The first of `egl` and `osmesa` that is installed."""
    there = (name for name, library in LIBRARIES.items() if ctypes.util.find_library(library))
    return next(there, None)
