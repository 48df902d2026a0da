"""Reading what the cells of a study found."""

from collections.abc import Sequence

from experiments.launch.study_folder import StudyFolder
from experiments.studies import Cell
from experiments.studies.results import Results, VariantRuns
from mst_jax.analysis import Row, read_results, read_training_returns
from mst_jax.runs import is_finished


def collect(folder: StudyFolder, cells: Sequence[Cell], training: bool = False) -> Results:
    """Reads the results of all finished cells; what cannot be read is a problem, not an end.

    `training`: the returns of training's own episodes too.
    """
    groups: dict[tuple[str, str, str], VariantRuns] = {}
    problems: dict[str, str] = {}
    for cell in cells:
        group = groups.setdefault(cell.group, VariantRuns(*cell.group, cell.labels))
        group.planned += cell.settings.seed_list
        run = folder.run(cell)
        if not is_finished(run):
            continue
        try:
            rows = read_results(run)
            _check_seeds(rows, cell)
            if training:
                group.training.append(read_training_returns(run))
            group.rows += rows
        except (ValueError, KeyError, OSError) as error:
            problems[cell.id] = f"{type(error).__name__}: {error}"
    return Results(list(groups.values()), problems)


def _check_seeds(rows: Sequence[Row], cell: Cell) -> None:
    found = {row["seed"] for row in rows if row["step"] == cell.settings.steps}
    absent = [seed for seed in cell.settings.seed_list if seed not in found]
    if absent:
        raise ValueError(f"metrics of seeds {absent} lack the evaluation at the last step")
