"""Under which versions and on which machine a result came about."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "dm_control", "mujoco")


def describe_machine() -> dict[str, Any]:
    """Versions, git revision and hardware, for every saved result."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_revision(),
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "devices": [str(device.device_kind) for device in jax.devices()],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision(file: Path = Path(__file__)) -> str | None:
    """The revision of this source tree, with +changes if the work tree differs; else None.

    None also when another project's repository is around an installed package, as when a virtual
    environment lies in it: only a repository that tracks our own files says what we are.
    """
    run = lambda *args: subprocess.run(  # noqa: E731
        ["git", "-C", str(file.parent), *args], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        run("ls-files", "--error-unmatch", file.name)
        return run("rev-parse", "HEAD") + ("+changes" if run("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
