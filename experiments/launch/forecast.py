"""What a plan will cost, before anything is started: device-hours and bytes, roughly."""

import dataclasses
import json
from collections.abc import Sequence
from typing import NamedTuple

from experiments.launch.grouping import Cells
from mst_jax.agents import make_agent
from mst_jax.analysis import Cost, cost_of_agent, spec_of
from mst_jax.runs import Settings
from mst_jax.training import light_bytes, memory_bytes

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


class Forecast(NamedTuple):
    """What cells will take; hours are of one device each.

    Attributes:
        runs: seeds, all cells together.
        hours: device-hours.
        device_bytes: memory of the largest program, and of its full checkpoints on disk.
        disk_bytes: what all cells leave on disk.
    """

    runs: int
    hours: float
    device_bytes: int
    disk_bytes: int


def forecast_groups(groups: Sequence[Cells], device: Device) -> Forecast:
    """Adds up cells; those that differ in their task only count as the first of them.

    Raises:
        ValueError: a cell whose task or settings cannot be made.
    """
    seconds, largest, disk = 0.0, 0, 0
    known: dict[str, tuple[Cost, int, int]] = {}
    for group in groups:
        work, in_memory, updates = 0.0, 0, 0
        for cell in group:
            settings = cell.settings
            spec_of(settings)  # an unknown task is told now, not by its cell
            key = _without_task(settings)
            if key not in known:
                known[key] = _measure(settings)
            cost, own_bytes, policy_bytes = known[key]
            work += settings.seeds * cost.dense_flops  # masks save nothing on today's devices
            in_memory += own_bytes
            updates = cost.updates
            disk += KEPT_POLICIES * policy_bytes
        seconds += COMPILE_SECONDS + updates * (device.latency + work / device.rate)
        largest = max(largest, in_memory)
    runs = sum(cell.settings.seeds for group in groups for cell in group)
    return Forecast(runs, seconds / 3600, largest, disk)


def _measure(settings: Settings) -> tuple[Cost, int, int]:
    """A cell's costs, the bytes of its agents and replay buffers, and of a light checkpoint."""
    spec = spec_of(settings)
    agent = make_agent(settings.agent, settings.config, spec, settings.steps)
    in_memory = sum(memory_bytes(agent, spec, settings))
    return cost_of_agent(agent, settings), in_memory, light_bytes(agent, settings)


def _without_task(settings: Settings) -> str:
    same = dataclasses.replace(settings, seed=0, recipe="", task="")
    return json.dumps(dataclasses.asdict(same), sort_keys=True)
