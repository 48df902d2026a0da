"""Evaluates a run's newest policies: python -m experiments.evaluate RUN_FOLDER --episodes=10.

Writes evaluation.json into the run folder, or evaluation_best.json with --best: the policies of
each seed's best evaluation, as of the newest full checkpoint.
With --video=FILE.mp4 (or .gif) the first seed's first episode is also filmed.
With --policy=FILE instead of a run folder an exported policy plays, a .npz file or the compiled .so
of a .c file, and FILE.evaluation.json is written beside it.
"""

import json
import sys

import numpy as np
from absl import flags

from experiments.cli import launch, one_line_errors, run_folders
from experiments.inputs import define_path, require_output, require_writable
from experiments.video import EPISODES_PLAYED, START_STATES, film, first_key, first_start, writer
from mst_jax import envs, load_exported
from mst_jax.program.evaluation import make_evaluator
from mst_jax.program.file_evaluation import file_returns, require_fitting
from mst_jax.runs import checkpoints
from mst_jax.runs.files import replace_text
from mst_jax.runs.health import mean_of_known
from mst_jax.runs.settings import MOST_EPISODES
from mst_jax.training import load_snapshot

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
POLICY = define_path("policy", None, "Exported policy to play instead of a run's.")
TASK = flags.DEFINE_string("task", None, "Task for --policy; the one that the file names if not.")


def main(argv: list[str]) -> None:
    """Evaluates a run's policies, or an exported one."""
    if POLICY.value is not None:
        evaluate_file(argv)
    else:
        evaluate_run(argv)


def evaluate_file(argv: list[str]) -> None:
    """Plays an exported policy, prints its returns and writes them beside it."""
    path = POLICY.value
    with one_line_errors():
        if len(argv) > 1 or BEST.value or VIDEO.value:
            raise ValueError(
                "--policy plays one file: no run folder, --best or --video goes with it"
            )
        require_numbered()
        output = path.with_name(f"{path.name}.evaluation.json")
        require_output(output)
        policy = load_exported(path)
        source = policy.description["source"]
        seed = source.get("seed", 0)
        name = TASK.value or policy.description["task"]
        task = envs.make(name, action_repeat=source.get("action_repeat") or None)
        require_fitting(policy, task)
        returns = file_returns(policy, task, seed, EPISODES.value, INDEX.value)
    print(f"{task.spec.task}, {path.name}, {EPISODES.value} episodes")
    print(f"  seed {seed}: {describe(returns)}")
    result = {
        "file": path.name,
        "task": task.spec.task,
        **source,
        "episodes": EPISODES.value,
        "index": INDEX.value,
        "returns": {seed: [known_or_none(value) for value in returns.tolist()]},
    }
    replace_text(output, json.dumps(result, indent=2) + "\n")
    print(f"written to {output}")


def evaluate_run(argv: list[str]) -> None:
    """Prints the return of each seed and writes them, and what they are of, into the run folder."""
    with one_line_errors():
        if TASK.value is not None:
            raise ValueError("--task goes with --policy: a run is evaluated on its own task")
        (folder,) = run_folders(argv, at_most=1)
        require_numbered()
        require_writable(folder)
        if VIDEO.value:
            writer(VIDEO.value)  # refuses a file that cannot be written
        snapshot = load_snapshot(folder, checkpoints.BEST if BEST.value else checkpoints.LIGHT)
        settings, healthy = snapshot.settings, snapshot.healthy
        task = envs.make(settings.task, **settings.task_options)
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
            seed: [known_or_none(value) for value in values.tolist()]
            for seed, values in zip(settings.seed_list, returns, strict=True)
        },
    }
    replace_text(path, json.dumps(result, indent=2) + "\n")
    print(f"written to {path}")


def require_numbered() -> None:
    """Raises ValueError when start states would need numbers of more than 32 bits."""
    if (INDEX.value + 1) * EPISODES.value > 2**32:
        raise ValueError(f"--index={INDEX.value} is too large for so many episodes")


def known_or_none(value: float) -> float | None:
    """A return as JSON has it."""
    return value if np.isfinite(value) else None


def describe(values: np.ndarray) -> str:
    """Mean and deviation of the returns there are, and of how many episodes if some have none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return "no return"
    some = "" if known.size == values.size else f" ({known.size} of {values.size} episodes)"
    return f"{known.mean():8.1f} +- {known.std():.1f}{some}"


if __name__ == "__main__":
    launch(main, arguments=True)
