"""Pictures of MuJoCo models without a window, by EGL or OSMesa.

The context is made here rather than by dm_control or `mujoco.Renderer`: both choose, when they are
first imported, by MUJOCO_GL, which is `disabled` where only states are needed.
"""

from importlib import import_module
from typing import Any

import mujoco
import numpy as np

from mst_jax.envs.film import opengl

MOST_SHAPES = 10_000  # a terrain has thousands


class Camera:
    """Draws a model as its first camera sees it, or the whole of it if there is none."""

    def __init__(self, model: mujoco.MjModel, width: int = 320, height: int = 240) -> None:
        """Uploads meshes, textures and terrain; what is changed in them later is not seen.

        Args:
            model: what to draw.
            width: in pixels, at most the model's offscreen width (640 unless it says otherwise).
            height: in pixels, likewise (480).

        Raises:
            ValueError: if there is no EGL and no OSMesa here, or the one chosen does not work.
        """
        self._model = model
        self._gl = _context(width, height)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=MOST_SHAPES)
        self._options = mujoco.MjvOption()
        self._view = mujoco.MjvCamera()
        if model.ncam:
            self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._view.fixedcamid = 0
        else:
            mujoco.mjv_defaultFreeCamera(model, self._view)
        self._frame = mujoco.MjrRect(0, 0, width, height)

    def picture(self, data: mujoco.MjData) -> np.ndarray:
        """Draws a state: uint8 [height, width, 3]."""
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._view, everything, self._scene
        )
        mujoco.mjr_render(self._frame, self._scene, self._context)
        pixels = np.empty((self._frame.height, self._frame.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._frame, self._context)
        return pixels[::-1]  # OpenGL counts rows from the bottom

    def close(self) -> None:
        """Releases the context; may be called again."""
        self._context.free()
        self._gl.free()


def _context(width: int, height: int) -> Any:
    """An OpenGL context made current: MUJOCO_GL's if it names one, else what is installed."""
    chosen = opengl.named() or opengl.installed()
    if chosen is None:
        raise ValueError(
            "pictures need EGL or OSMesa, and neither is installed: apt-get install libosmesa6"
        )
    try:
        context = import_module(f"mujoco.{chosen}").GLContext(width, height)
        context.make_current()
    except Exception as error:  # PyOpenGL has errors of many kinds, some from ctypes
        raise ValueError(
            f"MuJoCo cannot draw by {chosen} here ({type(error).__name__}); MUJOCO_GL=osmesa draws "
            "without a graphics driver, after apt-get install libosmesa6"
        ) from error
    return context
