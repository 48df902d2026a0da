"""Settings for the whole suite: programs are small here, so compiling them is what takes time."""

import ctypes
import gc
import os
import time
from importlib.metadata import version
from pathlib import Path

# Before jax is imported, here and in the programs that tests start. The first halves what compiling
# takes, the other saves a third of the rest; matrix products come precompiled and are not affected.
# (Not xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE: a program then differs from run to run.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    # Since 0.12 it is not there any more, and an unknown flag ends the process.
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib") < "0.12" else ""),
)
os.environ.setdefault("MUJOCO_GL", "disabled")

import jax
import pytest

from experiments.compilation import default_folder
from mst_jax.program import cache

# Tests that build the same program again, the programs they start, and the next session find it
# compiled. Another jax or processor has a folder of its own.
PROGRAMS = Path(__file__).parents[1] / ".test_programs"
DAYS = 14  # after which a program that no test has asked for goes
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers of pytest-xdist inherit it
    folder = PROGRAMS / f"jax-{jax.__version__}-{default_folder().name}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    for old in PROGRAMS.rglob("*"):
        if old.is_file() and old.stat().st_atime < time.time() - DAYS * 86_400:
            old.unlink(missing_ok=True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
# Tracing makes many objects that all live on; looking through them took a fifth of the time.
gc.set_threshold(50_000, 50, 100)

MOST_MEMORY = 1.5e9  # bytes that a worker may hold after a test before it lets its programs go


@pytest.fixture(autouse=True)
def bounded_memory():
    """Compiled programs are most of what a worker holds; the disk has them."""
    yield
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if resident > MOST_MEMORY:
        cache.forget()
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of one finished run of two seeds; read it, do not change it."""
    from small_runs import small_settings

    from mst_jax.training import plan_run, train

    settings = small_settings(
        steps=120, eval_every=60, log_every=60, checkpoint_every=0, history_every=20
    )
    return train(plan_run(settings, tmp_path_factory.mktemp("finished"))).folder
