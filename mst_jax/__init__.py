"""Sparse training for scalable deep reinforcement learning, in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mst_jax.training import load_policy

__version__ = "0.1.0"  # setup.py reads it from here

__all__ = ["__version__", "load_policy"]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that environment workers, which need no jax, do not import it."""
    if name != "load_policy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mst_jax.training import load_policy

    return load_policy
