"""Silence while other libraries load: what they say concerns their authors, not the user."""

import contextlib
import io
import warnings
from collections.abc import Iterator

from mst_jax.envs.film import opengl


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what libraries print and warn of when they are imported, loaded and traced.

    mjx prints that the optional `warp` is missing, brax and jaxopt warn that newer libraries exist,
    brax uses what mjx deprecates, and MuJoCo would write what it deprecates into a log file.

    Raises:
        ValueError: MUJOCO_GL names what MuJoCo could not be imported with.
    """
    opengl.named()
    import mujoco

    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        mujoco.set_mju_user_warning(previous)
