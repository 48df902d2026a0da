"""Trains the same runs in two checkouts, in turn, and compares how fast they go.

    git worktree add ../before REVISION
    python -m benchmarks.same_speed --before=../before [--output=FILE]

Both checkouts use this interpreter and its packages. Speeds are the updates and steps a second of
the rows after learning began, the first of which is not counted (it compiles); each round runs both
checkouts one after the other, and the ratios are medians over rounds.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import flags

from benchmarks.harness import define_output, launch_benchmark, show, write_results
from experiments.cli import one_line_errors
from experiments.inputs import define_path
from experiments.quickstart import SMALL
from mst_jax.runs import read_metrics

BEFORE = define_path("before", None, "The other checkout.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each run is trained in each.", lower_bound=1)
OUTPUT = define_output()

SPEEDS = ("wall/updates_per_second", "wall/steps_per_second")
QUICKSTART = [f"--config.{name}={value}" for name, value in SMALL.items()]
RUNS = {
    "quickstart, mrq mst on the host": [
        *("--agent=mrq", "--task=dmc:cartpole-swingup", "--seeds=2", "--steps=2500", *QUICKSTART),
    ],
    "quickstart's size, mrq mst on the device": [
        *("--agent=mrq", "--task=probe:point", "--seeds=2", "--steps=3500", *QUICKSTART),
    ],
    "SimBa 1x1, sac mst on the device": [
        *("--agent=sac", "--task=probe:point", "--steps=1200", "--config.learning_starts=200"),
    ],
}
PERIODS = [
    *("--log_every=250", "--eval_every=100000", "--eval_episodes=1", "--checkpoint_every=0"),
    *("--diagnose_every=0", "--history_every=0"),
]


def speeds(checkout: Path, arguments: list[str], programs: str) -> dict[str, float]:
    """Medians over a run's rows."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "JAX_COMPILATION_CACHE_DIR": programs}
    with tempfile.TemporaryDirectory() as logdir:
        subprocess.run(
            [
                *(sys.executable, "-m", "experiments.train", *arguments, *PERIODS),
                f"--logdir={logdir}",
            ],
            cwd=checkout,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        (seed, *_) = Path(logdir).glob("*/*/seed_0")
        rows = [row for row in read_metrics(seed) if "wall/updates_per_second" in row][1:]
    return {name: statistics.median(row[name] for row in rows) for name in SPEEDS}


def main(_: list[str]) -> None:
    """Compares every run."""
    with one_line_errors():
        if BEFORE.value is None or not (BEFORE.value / "mst_jax").is_dir():
            raise ValueError("name another checkout: --before=FOLDER")
    here, results = Path(__file__).parents[1], {}
    with tempfile.TemporaryDirectory() as programs:
        for name, arguments in RUNS.items():
            pairs = [
                tuple(
                    speeds(checkout, arguments, programs)
                    for checkout in (BEFORE.value.resolve(), here)
                )
                for _ in range(ROUNDS.value)
            ]
            results[name] = show(
                name,
                {
                    f"{speed.removeprefix('wall/')}, now over before": statistics.median(
                        now[speed] / before[speed] for before, now in pairs
                    )
                    for speed in SPEEDS
                },
            )
    write_results(OUTPUT.value, "benchmarks.same_speed", results)


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
