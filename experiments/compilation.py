"""Where compiled programs are kept, so that the next process need not compile them again."""

import hashlib
import os
from pathlib import Path

import jax
from absl import flags

CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder of compiled programs, or 'off'. Default: what jax is set to "
    "(JAX_COMPILATION_CACHE_DIR), or mst_jax in the user's cache folder.",
)
OFF = "off"
LEAST_SECONDS = "0.5"  # what compiles faster is not worth a file
VARIABLES = {
    "folder": "JAX_COMPILATION_CACHE_DIR",
    "on": "JAX_ENABLE_COMPILATION_CACHE",
    "least": "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
}


def use_cache() -> None:
    """Follows the flag, in this process and by environment variables in those it starts.

    Raises:
        ValueError: the folder that the flag names cannot be made.
    """
    if CACHE.value == OFF:
        os.environ[VARIABLES["on"]] = "false"
        jax.config.update("jax_enable_compilation_cache", False)
        return
    values = jax.config.values
    set_up = not values["jax_enable_compilation_cache"] or values["jax_compilation_cache_dir"]
    if CACHE.value is None and set_up:
        return  # by the user, or by the launcher that started this process
    folder = default_folder() if CACHE.value is None else Path(CACHE.value).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if CACHE.value is None:
            return  # a home that cannot be written to is no reason not to train
        raise ValueError(f"--compilation_cache={CACHE.value}: {error.strerror}") from error
    os.environ[VARIABLES["folder"]] = str(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    least = os.environ.setdefault(VARIABLES["least"], LEAST_SECONDS)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(least))


def default_folder() -> Path:
    """A folder for this kind of processor: machines that share a home may have different ones.

    jax takes one processor's programs for those of another, where they may not run.
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    return caches / "mst_jax" / f"programs-{_processor()}"


def _processor() -> str:
    """A short name of what the processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    abilities = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{os.uname().machine}-{hashlib.sha256(abilities.encode()).hexdigest()[:8]}"
