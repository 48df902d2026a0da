"""Evaluates a run's newest policies: python -m experiments.evaluate RUN_FOLDER --episodes=10.

With --best the policies of each seed's best evaluation, as of the newest full checkpoint.
With --video=FILE.mp4 (or .gif) the first seed's first episode is also filmed.
"""

import json

import numpy as np
from absl import flags

from experiments.cli import launch, one_line_errors, run_folders
from experiments.inputs import define_path, require_writable
from experiments.video import EPISODES_PLAYED, START_STATES, film, first_start, writer
from mst_jax import envs
from mst_jax.training import checkpoints, load_snapshot
from mst_jax.training.evaluation import make_evaluator
from mst_jax.training.settings import MOST_EPISODES

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
    """Prints the return of each seed and writes evaluation.json into the run folder."""
    with one_line_errors():
        (folder,) = run_folders(argv, at_most=1)
        if (INDEX.value + 1) * EPISODES.value > 2**32:  # start states are numbered with 32 bits
            raise ValueError(f"--index={INDEX.value} is too large for so many episodes")
        require_writable(folder)
        if VIDEO.value:
            writer(VIDEO.value)  # refuses a file that cannot be written
        tier = checkpoints.BEST if BEST.value else checkpoints.LIGHT
        snapshot = load_snapshot(folder, tier)
        settings, agent, states, _, step = snapshot
        task = envs.make(settings.task)
        if VIDEO.value:
            start = first_start(task, settings.seed_list, 0, EPISODES.value, INDEX.value)
            print(film(VIDEO.value, settings.task, snapshot.policy(), start))
    evaluator = make_evaluator(agent, task, settings.seed_list, EPISODES.value)
    try:
        returns = evaluator(states, INDEX.value).returns
    finally:
        evaluator.close()
    which = "best policies until step" if BEST.value else "step"
    print(
        f"{settings.task}, {settings.recipe}, {which} {step:,}, {EPISODES.value} episodes per seed"
    )
    for seed, values in zip(settings.seed_list, returns, strict=True):
        print(f"  seed {seed}: {values.mean():8.1f} +- {values.std():.1f}")
    print(f"  mean  : {returns.mean():8.1f}")
    result = {"step": step, "returns": dict(zip(settings.seed_list, returns.tolist(), strict=True))}
    path = folder / "evaluation.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}; mean over seeds {np.mean(returns):.1f}")


if __name__ == "__main__":
    launch(main, arguments=True)
