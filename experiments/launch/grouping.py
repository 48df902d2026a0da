"""Which cells of a study can be trained in one compiled program."""

from collections.abc import Sequence

from experiments.studies import Cell
from mst_jax.runs import Settings
from mst_jax.training import grouped, together_key

Cells = tuple[Cell, ...]  # cells that one process trains in one program


def group_cells(cells: Sequence[Cell], most: int) -> list[Cells]:
    """Groups cells that differ in a module's sparsity, drop fraction or learning rate only.

    Args:
        cells: any cells; those of one group have the same block of seeds.
        most: runs of a group, seeds counted one by one; a cell with more is a group of its own.

    Returns:
        The groups in the order of their first cells, each in the order of the cells.
    """
    groups = grouped([cell.settings for cell in cells], most, _key)
    return [tuple(cells[index] for index in group) for group in groups]


def title(group: Cells) -> str:
    """What to call a group in one line."""
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{group[0].id}{more}"


def _key(settings: Settings) -> str:
    """Cells of one program have the same seeds too: how they are grouped rounds their results."""
    return f"{together_key(settings)} {settings.seed} {settings.seeds}"
