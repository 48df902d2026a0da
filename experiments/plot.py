"""Draws learning curves: python -m experiments.plot RUN_FOLDER... [--output=learning_curve.png]."""

from pathlib import Path

from absl import flags

from experiments.cli import launch, one_line_errors, run_folders
from mst_jax.analysis import draw_curves, read_curve, read_published
from mst_jax.training.health import describe_diverged

OUTPUT = flags.DEFINE_string("output", None, "Picture; by default in the first run folder.")
PUBLISHED = flags.DEFINE_string(
    "published", None, "CSV of published curves to draw beside (docs/results has one)."
)


def main(argv: list[str]) -> None:
    """Draws every seed and the mean of each run."""
    with one_line_errors():
        folders = run_folders(argv)
        curves = [read_curve(folder) for folder in folders]
        published = read_published(Path(PUBLISHED.value)) if PUBLISHED.value else []
    path = Path(OUTPUT.value) if OUTPUT.value else folders[0] / "learning_curve.png"
    draw_curves(curves, path, published)
    for folder, curve in zip(folders, curves, strict=True):
        if curve.diverged:
            print(f"{folder}: {describe_diverged(curve.diverged)}")
    print(path)


if __name__ == "__main__":
    launch(main)
