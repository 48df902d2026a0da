"""Evaluates a run's newest policies: python -m experiments.evaluate RUN_FOLDER --episodes=10.

Writes evaluation.json into the run folder, or evaluation_best.json with --best: the policies of
each seed's best evaluation, as of the newest full checkpoint.
With --video=FILE.mp4 (or .gif) the first seed's first episode is also filmed.
"""

import json
import sys
from pathlib import Path

import numpy as np
from absl import flags

from experiments.cli import launch, one_line_errors, run_folders
from experiments.inputs import define_path, require_writable
from experiments.video import EPISODES_PLAYED, START_STATES, film, first_key, first_start, writer
from mst_jax import envs
from mst_jax.analysis import read_diverged
from mst_jax.program.evaluation import make_evaluator
from mst_jax.runs import checkpoints
from mst_jax.runs.files import replace_text
from mst_jax.runs.health import healthy_at, mean_of_known
from mst_jax.runs.settings import MOST_EPISODES
from mst_jax.training import Snapshot, load_snapshot

EPISODES = flags.DEFINE_integer(
    "episodes", EPISODES_PLAYED, "Episodes per seed.", lower_bound=1, upper_bound=MOST_EPISODES
)
INDEX = flags.DEFINE_integer(
    "index",
    START_STATES,
    "Which start states: evaluations of one index see the same ones.",
    lower_bound=0,
)
BEST = flags.DEFINE_bool("best", False, "Each seed's best policy so far instead of the newest.")
VIDEO = define_path("video", None, "Film of one episode to write: a .mp4 or .gif file.")


def main(argv: list[str]) -> None:
    """Prints the return of each seed and writes them, and what they are of, into the run folder."""
    with one_line_errors():
        (folder,) = run_folders(argv, at_most=1)
        if (INDEX.value + 1) * EPISODES.value > 2**32:  # start states are numbered with 32 bits
            raise ValueError(f"--index={INDEX.value} is too large for so many episodes")
        require_writable(folder)
        if VIDEO.value:
            writer(VIDEO.value)  # refuses a file that cannot be written
        snapshot = load_snapshot(folder, checkpoints.BEST if BEST.value else checkpoints.LIGHT)
        settings, healthy = snapshot.settings, healthy_policies(folder, snapshot, BEST.value)
        task = envs.make(settings.task, with_time=settings.with_time)
        if VIDEO.value:
            if not healthy[0]:
                raise ValueError(f"seed {settings.seed} has diverged: there is no policy to film")
            start = first_start(task, settings.seed_list, 0, EPISODES.value, INDEX.value)
            key = first_key(settings.seed_list, 0, EPISODES.value, INDEX.value)
            print(film(VIDEO.value, settings, snapshot.policy(), start, key))
    evaluator = make_evaluator(snapshot.agent, task, settings.seed_list, EPISODES.value)
    try:
        returns = evaluator(snapshot.states, INDEX.value).of_healthy(healthy).returns
    finally:
        evaluator.close()
    if evaluator.failure:
        sys.exit(f"error: {evaluator.failure}")
    which = "best policies until step" if BEST.value else "step"
    what = f"{settings.task}, {settings.recipe}, {which} {snapshot.step:,}"
    print(f"{what}, {EPISODES.value} episodes per seed")
    for seed, values, well in zip(settings.seed_list, returns, healthy, strict=True):
        print(f"  seed {seed}: {describe(values) if well else 'diverged: it has no return'}")
    known = np.isfinite(returns).any(axis=1).sum()
    mean = mean_of_known(mean_of_known(returns))
    print(
        f"  mean  : {mean:8.1f}"
        + ("" if known == len(returns) else f" ({known} of {len(returns)} seeds)")
    )
    path = folder / ("evaluation_best.json" if BEST.value else "evaluation.json")
    result = {
        "run": settings.folder_name,
        "policy": "best" if BEST.value else "last",
        "step": snapshot.step,
        "episodes": EPISODES.value,
        "index": INDEX.value,
        "returns": {
            seed: [value if np.isfinite(value) else None for value in values.tolist()]
            for seed, values in zip(settings.seed_list, returns, strict=True)
        },
    }
    replace_text(path, json.dumps(result, indent=2) + "\n")
    print(f"written to {path}")


def healthy_policies(folder: Path, snapshot: Snapshot, best: bool) -> np.ndarray:
    """Which seeds' policies have a return, (S,) bool; a best one was chosen before it diverged."""
    diverged = {} if best else read_diverged(folder)
    seeds = snapshot.settings.seed_list
    return snapshot.healthy & [healthy_at(snapshot.step, diverged.get(seed)) for seed in seeds]


def describe(values: np.ndarray) -> str:
    """Mean and deviation of the returns there are, and of how many episodes if some have none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return "no return"
    some = "" if known.size == values.size else f" ({known.size} of {values.size} episodes)"
    return f"{known.mean():8.1f} +- {known.std():.1f}{some}"


if __name__ == "__main__":
    launch(main, arguments=True)
