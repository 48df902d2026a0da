"""Device replay buffer: a ring per seed, n-step and sub-trajectory views, prioritised sampling."""

from mst_jax.replay.layout import Layout, fewest_slots
from mst_jax.replay.oldest import oldest, without_oldest
from mst_jax.replay.ring import Buffer, create, insert, nbytes, set_priorities, view
from mst_jax.replay.storage import check, pack, unpack
from mst_jax.replay.views import Subtrajectory, Transition, View

__all__ = [
    "Buffer",
    "Layout",
    "Subtrajectory",
    "Transition",
    "View",
    "check",
    "create",
    "fewest_slots",
    "insert",
    "nbytes",
    "oldest",
    "pack",
    "set_priorities",
    "unpack",
    "view",
    "without_oldest",
]
