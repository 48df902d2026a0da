"""Draws learning curves: python -m experiments.plot RUN_FOLDER... [--output=learning_curve.png]."""

from pathlib import Path

from matplotlib.figure import Figure

from experiments.cli import launch, one_line_errors, run_folders
from experiments.inputs import define_path, require_output
from mst_jax.analysis import Published, read_curve, read_published
from mst_jax.figures import draw_curves, save_figure
from mst_jax.runs.health import describe_diverged

OUTPUT = define_path("output", None, "Picture; by default in the first run folder.")
PUBLISHED = define_path(
    "published", None, "CSV of published curves to draw beside (docs/results/mrq_published.csv)."
)


def main(argv: list[str]) -> None:
    """Draws every seed and the mean of each run."""
    with one_line_errors():
        folders = run_folders(argv)
        curves = [read_curve(folder) for folder in folders]
        published = _published(PUBLISHED.value) if PUBLISHED.value else []
        path = OUTPUT.value or folders[0] / "learning_curve.png"
        require_output(path, [f".{name}" for name in Figure().canvas.get_supported_filetypes()])
    save_figure(draw_curves(curves, published), path)
    for folder, curve in zip(folders, curves, strict=True):
        if curve.diverged:
            print(f"{folder}: {describe_diverged(curve.diverged)}")
    print(path)


def _published(path: Path) -> list[Published]:
    """Published curves; ValueError naming the file when it holds something else."""
    try:
        return read_published(path)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a table of published curves: {error!r}") from error


if __name__ == "__main__":
    launch(main, arguments=True)
