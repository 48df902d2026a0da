"""Shows a run's topology: python -m experiments.inspect RUN_FOLDER [--seed=0] [--fingerprint].

Writes every picture that the run's data allow, and one page with all of them for a browser.
"""

import jax
import numpy as np
from absl import flags

from experiments.cli import launch, one_line_errors, run_folders
from experiments.inputs import define_path, require_writable
from mst_jax.agents import training_costs
from mst_jax.analysis import read_layers
from mst_jax.figures import layer_table, write_report
from mst_jax.runs.health import describe_diverged, read_diverged
from mst_jax.topology import densified
from mst_jax.training import checkpoint_fingerprint, load_snapshot

SEED = flags.DEFINE_integer(
    "seed", None, "One of the run's seeds; the first by default.", lower_bound=0
)
OUTPUT = define_path(
    "output", None, "Folder for inspect.html and pictures/; the run folder by default."
)
FINGERPRINT = flags.DEFINE_bool(
    "fingerprint", False, "Also print the hash of the newest full checkpoint's run."
)


def main(argv: list[str]) -> None:
    """Prints what every module keeps, draws all there is, and says where it is."""
    with one_line_errors():
        (folder,) = run_folders(argv, at_most=1)
        require_writable(OUTPUT.value or folder)
        found, snapshot = read_layers(folder, SEED.value), load_snapshot(folder)
        diverged = read_diverged(folder)
        digest = checkpoint_fingerprint(folder) if FINGERPRINT.value else None
    settings, index = found.settings, found.settings.index_of(found.seed)
    print(f"{settings.task}, {settings.recipe}, seed {found.seed}, step {found.step:,}")
    if diverged:
        print(f"  {describe_diverged(diverged)}")
    for module, params in densified(snapshot.agent.parameters(snapshot.states)).items():
        total = sum(leaf[0].size for leaf in jax.tree.leaves(params))
        masks = [mask[index] for path, mask in snapshot.masks.items() if _of(module, path)]
        absent = sum(np.count_nonzero(~mask) for mask in masks)
        print(f"  {module}: {total - absent:,} of {total:,} parameters active")
    print(f"  {training_costs(snapshot.agent)}")
    print(layer_table(found.layers))
    report = write_report(folder, OUTPUT.value, SEED.value)
    for title, why in report.absent.items():
        print(f"not drawn: {title}: {why}")
    for picture in report.pictures:
        print(picture.path)
    print(report.page)
    if digest:
        print(f"fingerprint {digest}")


def _of(module: str, path: str) -> bool:
    return path.startswith(f"{module}/")


if __name__ == "__main__":
    launch(main, arguments=True)
