"""Which OpenGL draws without a window: EGL or OSMesa, by MUJOCO_GL or by what is installed.

As a program it prints what draws here: `require_renderer` runs it.
"""

import ctypes.util
import functools
import os
import subprocess
import sys
from importlib import import_module
from typing import Any

from tqdm import tqdm

from mst_jax.envs.host.processes import command

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
# What else both MuJoCo and dm_control know: a window's OpenGL, and none.
_WINDOW = ("", "glfw", "on", "1", "enable", "enabled", "true")
_NOTHING = ("off", "0", "disable", "disabled", "false")
SOFTWARE = ("llvmpipe", "softpipe", "swrast")  # Mesa's, without a graphics card
_PATIENCE_SECONDS = 120.0


def named() -> str | None:
    """`egl` or `osmesa` if MUJOCO_GL names it, else None.

    MuJoCo and dm_control import the one named as soon as they are imported themselves, so this is
    asked before.

    Raises:
        ValueError: if it is not installed, or there is nothing of that name.
    """
    name = os.environ.get("MUJOCO_GL", "").strip().lower()
    if name in (*_WINDOW, *_NOTHING):
        return None
    if name not in LIBRARIES:
        raise ValueError(
            f"MUJOCO_GL={name} is none of {', '.join(LIBRARIES)}, glfw and disabled: unset it, or "
            "choose one of them"
        )
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


def chosen() -> str:
    """`egl` or `osmesa`: the one that is named, else the first that is installed.

    Raises:
        ValueError: if the one named is not installed, or none is.
    """
    found = named() or installed()
    if found is None:
        raise ValueError(
            "pictures need EGL or OSMesa, and neither is installed: apt-get install libosmesa6"
        )
    return found


def context(width: int, height: int) -> Any:
    """An OpenGL context made current.

    Raises:
        ValueError: if there is no EGL and no OSMesa here, or the one chosen does not work.
    """
    kind = chosen()
    try:
        made = import_module(f"mujoco.{kind}").GLContext(width, height)
        made.make_current()
    except Exception as error:  # PyOpenGL has errors of many kinds, some from ctypes
        raise ValueError(_broken(kind, type(error).__name__)) from error
    return made


def _broken(kind: str, why: str) -> str:
    return (
        f"MuJoCo cannot draw by {kind} here ({why}); MUJOCO_GL=osmesa draws "
        "without a graphics driver, after apt-get install libosmesa6"
    )


@functools.cache
def require_renderer() -> None:
    """Opens a context in another process, where a driver may crash, and says what draws, once.

    Raises:
        ValueError: if none can be opened.
    """
    kind = chosen()
    try:
        tried = subprocess.run(
            command(__name__),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(_broken(kind, f"no answer for {_PATIENCE_SECONDS:g} s")) from error
    name = tried.stdout.strip()
    if tried.returncode or not name:
        lines = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
        raise ValueError(_broken(kind, lines[-1]))
    software = any(part in name.lower() for part in SOFTWARE)
    why = " (EGL found no graphics driver)" if kind == "egl" else ""
    slow = f", in software{why}" if software else ""
    tqdm.write(f"pictures are drawn by {kind}: {name}{slow}")


def main() -> None:
    """Prints the name of what draws here, or why nothing does."""
    try:
        opened = context(16, 16)
    except ValueError as error:
        sys.exit(f"{type(error.__cause__).__name__}")
    from OpenGL import GL  # it must be told of EGL or OSMesa before

    sys.stdout.write(GL.glGetString(GL.GL_RENDERER).decode())
    opened.free()


if __name__ == "__main__":
    main()
