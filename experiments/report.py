"""Writes report.md, results.csv and figures of a study: python -m experiments.report FOLDER."""

from experiments.cli import launch, one_line_errors, run_folders
from experiments.inputs import define_path, known_name, require_writable
from experiments.launch.collect import collect
from experiments.launch.study_folder import StudyFolder
from experiments.launch.study_report import study_report
from experiments.studies import STUDIES
from experiments.studies.figures import learning_curves
from experiments.studies.score_figures import over_tasks
from mst_jax.analysis import write_csv
from mst_jax.figures import save_figure

OUTPUT = define_path("output", None, "Folder for the report; by default FOLDER/report.")


def main(argv: list[str]) -> None:
    """Reads what is finished, and says what is not."""
    with one_line_errors():
        (path,) = run_folders(argv, at_most=1)
        folder = StudyFolder(path)
        manifest, cells = folder.manifest(), folder.cells()
        study = STUDIES[known_name("study", manifest["study"], STUDIES)]
        output = OUTPUT.value or path / "report"
        require_writable(output)
        results = collect(folder, cells, training=study.judge is not None)
    output.mkdir(parents=True, exist_ok=True)
    pictures = {}
    if results.rows:
        write_csv(output / "results.csv", results.rows)
        save_figure(study.figure(results), output / f"{study.name}.png")
        pictures[study.question] = f"{study.name}.png"
        if any(all(group.final for group in groups) for groups in results.over_tasks):
            save_figure(over_tasks(results), output / "over_tasks.png")
            pictures["Normalised scores over all tasks"] = "over_tasks.png"
        for column, label in (
            ("step", "agent steps"),
            ("flops", "theoretical sparse operations of training"),
            ("wall_seconds", "seconds of the run, all its seeds together"),
        ):
            figure = learning_curves(results, column, label)
            save_figure(figure, output / f"against_{column}.png")
            pictures[f"Return against {label}"] = f"against_{column}.png"
    (output / "report.md").write_text(
        study_report(study, folder, manifest, cells, results, pictures), encoding="utf-8"
    )
    print(output / "report.md")
    for line in [*results.missing, *(f"{k}: {v}" for k, v in results.problems.items())]:
        print(f"missing: {line}")


if __name__ == "__main__":
    launch(main, arguments=True)
