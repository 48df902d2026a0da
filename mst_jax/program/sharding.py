"""The seed axis over all local devices: each device trains its seeds, and none waits for another.

The compiled program has no collectives, because every device runs the one-device program on its own
slice (`jax.shard_map`); arrays keep their global shapes, so checkpoints do not know of devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mst_jax.program.state import LoopState, Totals

SEED = "seed"
# Tree prefixes, each in the place of arrays: what has the leading seed axis, and the counters that
# are stored once. The axis of environments is seed-major, so it is shared out by seeds as well.
SEEDS: Any = PartitionSpec(SEED)
SHARED: Any = PartitionSpec()
TOTALS = Totals(metrics=SEEDS, updates=SHARED, returns=SEEDS, episodes=SEEDS)
LOOP = LoopState(
    agent=SEEDS,
    buffer=SEEDS,
    environment=SEEDS,
    observation=SEEDS,
    action=SEEDS,
    episode_return=SEEDS,
    keys=SEEDS,
    healthy=SEEDS,
    totals=TOTALS,
    clock=SHARED,
)


def seed_mesh(num_seeds: int) -> Mesh | None:
    """The most local devices that share the seeds evenly; None when that is one."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)
    return None if count == 1 else Mesh(np.array(devices[:count]), (SEED,))


def seeds_per_device(num_seeds: int, mesh: Mesh | None) -> int:
    """How many seeds a function sees inside `over_devices`."""
    return num_seeds if mesh is None else num_seeds // mesh.size


def over_devices(
    fn: Callable[..., Any], mesh: Mesh | None, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """A function of one device's seeds as a function of all seeds; itself without a mesh.

    Args:
        fn: takes and returns trees for `seeds_per_device` seeds.
        mesh: of `seed_mesh`.
        in_specs: a tree prefix of `SEEDS` and `SHARED` for each argument.
        out_specs: the same for what it returns.
    """
    if mesh is None:
        return fn
    return jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def place(loop: LoopState, mesh: Mesh | None) -> LoopState:
    """The loop with its arrays where `over_devices` expects them."""
    if mesh is None:
        return loop
    return jax.device_put(loop, shardings(mesh))


def shardings(mesh: Mesh) -> LoopState:
    """Where each part of a loop is, as a tree prefix."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        LOOP,
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )
