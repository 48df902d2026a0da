"""Settings for the whole suite: programs are small here, so compiling them is what takes time."""

import os
import tempfile

# Before jax is imported, here and in the programs that tests start. Compiling at LLVM's lowest
# level halves the suite's time; matrix products come precompiled and are not affected.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("MUJOCO_GL", "disabled")

import jax
import pytest

# Tests that build the same program again, and the programs they start, find it compiled.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers of pytest-xdist inherit it
    _CACHE = tempfile.TemporaryDirectory(prefix="mst_jax_programs_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of one finished run of two seeds; read it, do not change it."""
    from small_runs import small_settings

    from mst_jax.training import plan_run, train

    settings = small_settings(
        steps=120, eval_every=60, log_every=60, checkpoint_every=0, history_every=20
    )
    return train(plan_run(settings, tmp_path_factory.mktemp("finished"))).folder
