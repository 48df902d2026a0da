"""Evaluates a run's newest policies: python -m experiments.evaluate RUN_FOLDER --episodes=10.

With --best the policies of each seed's best evaluation, as of the newest full checkpoint.
With --video=FILE.mp4 (or .gif) the first seed's first episode is also filmed.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags

from experiments.cli import launch, one_line_errors, run_folders
from experiments.video import film, first_start
from mst_jax import envs
from mst_jax.training import Policy, checkpoints, load_snapshot
from mst_jax.training.evaluation import make_evaluator

EPISODES = flags.DEFINE_integer("episodes", 10, "Episodes per seed.", lower_bound=1)
INDEX = flags.DEFINE_integer(
    "index", 1_000_000, "Which start states: evaluations of one index see the same ones."
)
BEST = flags.DEFINE_bool("best", False, "Each seed's best policy so far instead of the newest.")
VIDEO = flags.DEFINE_string("video", None, "Film of one episode to write: a .mp4 or .gif file.")


def main(argv: list[str]) -> None:
    """Prints the return of each seed and writes evaluation.json into the run folder."""
    with one_line_errors():
        (folder,) = run_folders(argv, at_most=1)
        tier = checkpoints.BEST if BEST.value else checkpoints.LIGHT
        settings, agent, states, _, step = load_snapshot(folder, tier)
        task = envs.make(settings.task)
        if VIDEO.value:
            policy = Policy(agent, jax.tree.map(lambda leaf: leaf[0], states))
            start = first_start(task, settings.seed_list, 0, EPISODES.value, INDEX.value)
            print(film(Path(VIDEO.value), settings.task, policy, start))
    evaluator = make_evaluator(agent, task, settings.seed_list, EPISODES.value)
    try:
        returns = evaluator(states, INDEX.value).returns
    finally:
        evaluator.close()
    if evaluator.failure:
        sys.exit(f"error: {evaluator.failure}")
    which = "best policies until step" if BEST.value else "step"
    print(
        f"{settings.task}, {settings.recipe}, {which} {step:,}, {EPISODES.value} episodes per seed"
    )
    for seed, values in zip(settings.seed_list, returns, strict=True):
        print(f"  seed {seed}: {values.mean():8.1f} +- {values.std():.1f}")
    print(f"  mean  : {returns.mean():8.1f}")
    result = {"step": step, "returns": dict(zip(settings.seed_list, returns.tolist(), strict=True))}
    path = Path(folder) / "evaluation.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}; mean over seeds {np.mean(returns):.1f}")


if __name__ == "__main__":
    launch(main)
