"""Which cells of a study can be trained in one compiled program."""

import dataclasses
import json
from collections.abc import Sequence

from experiments.studies import Cell
from mst_jax.agents import shared_settings
from mst_jax.runs import Settings

Cells = tuple[Cell, ...]  # cells that one process trains in one program


def group_cells(cells: Sequence[Cell], most: int) -> list[Cells]:
    """Groups cells that differ in a module's sparsity, drop fraction or learning rate only.

    Args:
        cells: any cells; those of one group have the same block of seeds.
        most: runs of a group, seeds counted one by one; a cell with more is a group of its own.

    Returns:
        The groups in the order of their first cells, each in the order of the cells.
    """
    alike: dict[str, list[list[Cell]]] = {}
    groups = []
    for cell in cells:
        open_groups = alike.setdefault(_shared(cell.settings), [])
        runs = sum(other.settings.seeds for other in open_groups[-1]) if open_groups else most
        if runs + cell.settings.seeds > most:
            open_groups.append([])
            groups.append(open_groups[-1])
        open_groups[-1].append(cell)
    return [tuple(group) for group in groups]


def title(group: Cells) -> str:
    """What to call a group in one line."""
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{group[0].id}{more}"


def _shared(settings: Settings) -> str:
    """What must agree for two cells to share a program."""
    fixed = shared_settings(settings.config)
    rest = dataclasses.asdict(dataclasses.replace(settings, recipe="", config=None))
    return json.dumps([fixed, rest], sort_keys=True)
