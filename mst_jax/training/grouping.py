"""Which runs can be trained in one compiled program."""

import dataclasses
import json
from collections.abc import Callable, Sequence

from mst_jax.agents import shared_settings
from mst_jax.runs.settings import Settings

OWN = ("recipe", "config", "seed", "seeds")  # in what runs of one program may differ


def shared_fields(settings: Settings) -> dict[str, object]:
    """What runs of one program must agree in, configurations apart."""
    fields = [field.name for field in dataclasses.fields(settings) if field.name not in OWN]
    return {name: getattr(settings, name) for name in fields}


def together_key(settings: Settings) -> str:
    """Equal for runs that can share a program."""
    shared = [shared_settings(settings.config), shared_fields(settings)]
    return json.dumps(shared, sort_keys=True)


def grouped(
    runs: Sequence[Settings], most: int, key: Callable[[Settings], str] = together_key
) -> list[list[int]]:
    """Groups runs that can share a program.

    Args:
        runs: their settings.
        most: seeds of a group; a run with more is a group of its own.
        key: equal for runs that may be in one group.

    Returns:
        Positions in `runs`: the groups in the order of their first runs, each in order.
    """
    alike: dict[str, list[list[int]]] = {}
    groups: list[list[int]] = []
    for index, settings in enumerate(runs):
        open_groups = alike.setdefault(key(settings), [])
        seeds = sum(runs[other].seeds for other in open_groups[-1]) if open_groups else most
        if seeds + settings.seeds > most:
            open_groups.append([])
            groups.append(open_groups[-1])
        open_groups[-1].append(index)
    return groups
