"""Sparse training for scalable deep reinforcement learning, in JAX."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from mst_jax import (
        agents,
        analysis,
        api,
        diagnostics,
        envs,
        export,
        figures,
        networks,
        recipes,
        replay,
        runs,
        topology,
        training,
    )
    from mst_jax.api import Run, export_policy, load, train, train_many
    from mst_jax.export import load_exported
    from mst_jax.training import load_policy

__version__ = "0.1.0"  # setup.py reads it from here

__all__ = [
    "Run",
    "__version__",
    "agents",
    "analysis",
    "api",
    "diagnostics",
    "envs",
    "export",
    "export_policy",
    "figures",
    "load",
    "load_exported",
    "load_policy",
    "networks",
    "recipes",
    "replay",
    "runs",
    "topology",
    "train",
    "train_many",
    "training",
]
_HOMES = {
    **dict.fromkeys(("Run", "export_policy", "load", "train", "train_many"), "mst_jax.api"),
    "load_exported": "mst_jax.export",
    "load_policy": "mst_jax.training",
}


def __getattr__(name: str) -> _Any:
    """Imports on first use, so that environment workers, which need no jax, do not import it."""
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    if name in __all__:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return __all__
