"""Device replay buffer: a ring per seed, n-step and sub-trajectory views, prioritised sampling."""

from mst_jax.replay.ring import Buffer, create, insert, nbytes, set_priorities, view
from mst_jax.replay.storage import check, pack, unpack
from mst_jax.replay.view import Subtrajectory, Transition, View

__all__ = [
    "Buffer",
    "Subtrajectory",
    "Transition",
    "View",
    "check",
    "create",
    "insert",
    "nbytes",
    "pack",
    "set_priorities",
    "unpack",
    "view",
]
