"""What a plan will cost, before anything is started: device-hours and bytes, roughly."""

import dataclasses
import json
from collections.abc import Sequence
from typing import NamedTuple

from experiments.studies import Cell
from mst_jax.analysis import cost_of, updates_at
from mst_jax.training import memory_bytes, prepare

COMPILE_SECONDS = 30.0  # a new process, its imports and its programs
KEPT_POLICIES = 6  # light checkpoints that stay on disk, the best policies included


class Device(NamedTuple):
    """A linear model of speed: seconds per update = latency + operations / rate.

    Attributes:
        latency: seconds that an update takes however small the networks are.
        rate: operations per second, in the units of `analysis.Cost.flops`.
        source: where the numbers come from.
    """

    latency: float
    rate: float
    source: str


CPU = Device(4e-3, 8e10, "MR.Q on 2 cores of an AMD EPYC, widths 64 and 512 (README)")
GPU = Device(1e-3, 1e13, "assumed, not measured")


class Estimate(NamedTuple):
    """What cells will take; hours are of one device each.

    Attributes:
        runs: seeds, all cells together.
        hours: device-hours of cells not finished.
        device_bytes: memory of the largest cell.
        disk_bytes: what all cells leave on disk.
        working_bytes: the largest full checkpoint, on disk while its cell runs, twice for a moment.
    """

    runs: int
    hours: float
    device_bytes: int
    disk_bytes: int
    working_bytes: int


def estimate_cells(cells: Sequence[Cell], device: Device) -> Estimate:
    """Adds up the cells; raises ValueError for one whose task or settings cannot be made."""
    seconds, device_bytes, disk, working = 0.0, 0, 0, 0
    memory: dict[str, tuple[int, int]] = {}
    for cell in cells:
        settings = cell.settings
        identity = dataclasses.asdict(dataclasses.replace(settings, seed=0, recipe=""))
        key = json.dumps(identity, sort_keys=True)
        if key not in memory:
            task, agent = prepare(settings)
            memory[key] = memory_bytes(agent, task.spec, settings)
        agents, replay = memory[key]
        cost = cost_of(settings)
        work = settings.seeds * cost.dense_flops  # masks save no operations on today's devices
        updates = updates_at(settings, settings.steps)
        seconds += COMPILE_SECONDS + updates * (device.latency + work / device.rate)
        device_bytes = max(device_bytes, agents + replay)
        working = max(working, agents + replay)
        disk += KEPT_POLICIES * 4 * cost.parameters * settings.seeds
    runs = sum(cell.settings.seeds for cell in cells)
    return Estimate(runs, seconds / 3600, device_bytes, disk, working)
