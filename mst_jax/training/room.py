"""Whether runs fit into this machine: refused before anything is allocated or written."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import jax

from mst_jax.agents import Agent
from mst_jax.envs import Spec
from mst_jax.program.sharding import seed_mesh, seeds_per_device
from mst_jax.runs.folder import CHECKPOINTS
from mst_jax.runs.settings import Settings
from mst_jax.training.memory import checkpoint_bytes, human, memory_bytes, replay_slots

_MEMORY = Path("/proc/meminfo")  # of Linux


def require_room(agent: Agent, spec: Spec, settings: Settings, folders: Iterable[Path]) -> None:
    """Raises ValueError, in one line, for runs that memory or disk cannot hold.

    Args:
        agent: one-seed functions.
        spec: of the task.
        settings: with the seeds of all runs counted.
        folders: of the runs; what their checkpoints take already is theirs.
    """
    agents, replay = memory_bytes(agent, spec, settings)
    share = seeds_per_device(settings.seeds, seed_mesh(settings.seeds)) / settings.seeds
    device = jax.local_devices()[0]
    cpu = device.platform == "cpu"
    free = free_memory() if cpu else _free_on(device)
    needed = (agents + replay) * (1 if cpu else share)
    slots = replay_slots(settings, agent, spec)
    if free is not None and needed > free:
        raise ValueError(
            f"{settings.seeds} seeds with {slots:,} slots of replay each take {human(needed)} of "
            f"memory, and {human(free)} are free: lower config.buffer_size, seeds or steps"
        )
    folders = list(folders)
    # Slots that are never filled are not written, and those of short episodes may not be.
    filled = min(1, settings.steps * settings.environments / slots) if slots else 1
    written = filled * checkpoint_bytes(agent, spec, settings)
    place = shutil.disk_usage(_there(folders[0])).free + sum(map(_size, folders))
    if written > place:
        raise ValueError(
            f"checkpoints will take {human(written)}, and {human(place)} are free in "
            f"{_there(folders[0])}: lower config.buffer_size, seeds or steps"
        )


def free_memory() -> int | None:
    """Bytes of memory that the machine can still give, swap included; None if it does not say."""
    if not _MEMORY.is_file():
        return None
    lines = (line.split() for line in _MEMORY.read_text().splitlines())
    kilobytes = {name.rstrip(":"): int(count) for name, count, *_ in lines}
    return 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])


def _free_on(device: jax.Device) -> int | None:
    """The same of an accelerator."""
    known = device.memory_stats() or {}
    return known["bytes_limit"] - known["bytes_in_use"] if "bytes_limit" in known else None


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists already."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _size(folder: Path) -> int:
    """Bytes of a run's checkpoints."""
    files = (path for path in (folder / CHECKPOINTS).rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files)
