"""Pictures of MuJoCo models without a window, by EGL or OSMesa.

The context is made here rather than by dm_control or `mujoco.Renderer`: both choose, when they are
first imported, by MUJOCO_GL, which is `disabled` where only states are needed.
"""

import atexit
import contextlib
from collections.abc import Iterator

import mujoco
import numpy as np

from mst_jax.envs.film import opengl

MOST_SHAPES = 10_000  # a terrain has thousands
FAST_SHADOWS = 512  # width of the shadow map; most models ask for 2048, which is most of the time
NOT_PLAIN = tuple(
    getattr(mujoco.mjtRndFlag, f"mjRND_{name}").value
    for name in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE")
)


class Camera:
    """Draws a model as one of its cameras sees it, or the whole of it if it has none."""

    def __init__(
        self,
        model: mujoco.MjModel,
        width: int = 320,
        height: int = 240,
        number: int = 0,
        quality: str = "exact",
    ) -> None:
        """Uploads meshes, textures and terrain; of what is changed later only terrain can be seen.

        Args:
            model: what to draw; its visual settings are changed for a moment.
            width: in pixels.
            height: in pixels.
            number: which of the model's cameras.
            quality: one of `pictures.QUALITIES`.

        Raises:
            ValueError: if there is no EGL and no OSMesa here, or the one chosen does not work.
        """
        self._model = model
        self._gl = opengl.context(width, height)
        with _visuals(model, width, height, quality):
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        self._terrain = model.hfield_data.copy()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=MOST_SHAPES)
        if quality == "plain":
            self._scene.flags[list(NOT_PLAIN)] = 0
        self._options = mujoco.MjvOption()
        self._view = mujoco.MjvCamera()
        if number < model.ncam:
            self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._view.fixedcamid = number
        else:
            mujoco.mjv_defaultFreeCamera(model, self._view)
        self._frame = mujoco.MjrRect(0, 0, width, height)
        self._open = True
        # Later than MuJoCo's own, and so called before it: that one ends EGL.
        atexit.register(self.close)

    def picture(self, data: mujoco.MjData, model: mujoco.MjModel | None = None) -> np.ndarray:
        """Draws a state: uint8 [height, width, 3].

        Args:
            data: the state.
            model: whose state it is, if not the camera's own: another one made of the same parts.
        """
        self._gl.make_current()
        model = model or self._model
        self._upload_terrain(model)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            model, data, self._options, None, self._view, everything, self._scene
        )
        mujoco.mjr_render(self._frame, self._scene, self._context)
        pixels = np.empty((self._frame.height, self._frame.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._frame, self._context)
        return pixels[::-1]  # OpenGL counts rows from the bottom

    def _upload_terrain(self, model: mujoco.MjModel) -> None:
        """Uploads terrain that is not the one drawn last: half as long as a picture takes."""
        if np.array_equal(model.hfield_data, self._terrain):
            return
        self._terrain = model.hfield_data.copy()
        for terrain in range(model.nhfield):
            mujoco.mjr_uploadHField(model, self._context, terrain)

    def close(self) -> None:
        """Releases the context; may be called again."""
        if self._open:
            self._open = False
            atexit.unregister(self.close)
            self._gl.make_current()  # what is freed is looked up in the current one
            self._context.free()
            self._gl.free()


@contextlib.contextmanager
def _visuals(model: mujoco.MjModel, width: int, height: int, quality: str) -> Iterator[None]:
    """The model as a context is to be made of it: it reads sizes and samples there and then."""
    drawn, frame = model.vis.quality, model.vis.global_
    before = drawn.shadowsize, drawn.offsamples, frame.offwidth, frame.offheight
    frame.offwidth, frame.offheight = width, height  # bytes do not depend on it
    if quality != "exact":
        drawn.shadowsize = min(drawn.shadowsize, FAST_SHADOWS)
    if quality == "plain":
        drawn.shadowsize = drawn.offsamples = 0
    try:
        yield
    finally:
        drawn.shadowsize, drawn.offsamples, frame.offwidth, frame.offheight = before
