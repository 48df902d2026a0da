"""Writes a run's policy as a file without jax: python -m experiments.export RUN_FOLDER policy.npz.

A name that ends in .npz is for NumPy, and a program that plays it comes beside; one that ends in .c
is a file of C99. docs/export.md has the rest.
"""

from absl import flags

from experiments.cli import command, launch, one_line_errors
from experiments.inputs import require_output, user_path
from mst_jax import export_policy
from mst_jax.export import DTYPES, FORMS, UNITS, compiling

SEED = flags.DEFINE_integer(
    "seed", None, "One of the run's seeds; the first by default.", lower_bound=0
)
BEST = flags.DEFINE_bool("best", False, "The policy of the seed's best evaluation.")
DTYPE = flags.DEFINE_enum("dtype", DTYPES[0], DTYPES, "Of the weights in the file.")
UNITS_OF = flags.DEFINE_enum(
    "units", UNITS[0], UNITS, "Of actions: within [-1, 1], or within the task's own range."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file if there is one.")


def main(argv: list[str]) -> None:
    """Writes the file and prints what is in it."""
    with one_line_errors():
        if len(argv) != 3:
            raise ValueError(
                f"name a run folder and the file to write, which ends in .{' or .'.join(FORMS)}"
            )
        folder, path = user_path(argv[1]), user_path(argv[2])
        require_output(path)
        done = export_policy(
            folder,
            path,
            seed=SEED.value,
            best=BEST.value,
            dtype=DTYPE.value,
            units=UNITS_OF.value,
            overwrite=OVERWRITE.value,
        )
    task, source = done.description["task"], done.description["source"]
    print(f"{task}, {source['run']}, seed {source['seed']}, step {source['step']:,}")
    print(f"  {done.bytes:,} bytes, {done.active:,} of {done.parameters:,} numbers are not zero")
    print(f"  largest difference of an action over 1,000 observations: {done.difference:.1e}")
    for written in done.paths:
        print(written)
    playable = path
    if path.suffix == ".c":
        print(compiling(path))
        playable = path.with_suffix(".so")
    print(command("evaluate", f"--policy={playable}"))


if __name__ == "__main__":
    launch(main, arguments=True)
