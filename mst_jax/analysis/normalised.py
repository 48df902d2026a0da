"""Scores that can be averaged over tasks: returns divided by what is a good return on each task."""

import numpy as np

# Mean returns of MR.Q after 1 M steps (specs/mst-and-mrq.md §4.3), so that 1 is as good as MR.Q.
GYM = {
    "Ant": 6902.0,
    "HalfCheetah": 12940.0,
    "Hopper": 2693.0,
    "Humanoid": 10224.0,
    "Walker2d": 6040.0,
}
DMC = 1000.0  # an episode has 1000 environment steps with rewards in [0, 1]


def unit_of(task: str) -> float | None:
    """The return that counts as 1 on a task (`suite:name`), or None where nothing is agreed on.

    DeepMind Control tasks (`dmc`, `envpool`): 1000, but none for LQR, whose returns are costs.
    Gymnasium's MuJoCo tasks (`gym`): the published return of MR.Q. Other tasks have no unit, and
    their returns must not be averaged over tasks.
    """
    suite, _, name = task.partition(":")
    if suite in ("dmc", "envpool"):
        return None if name.startswith("lqr") else DMC
    return GYM.get(name.partition("-")[0]) if suite == "gym" else None


def normalised(task: str, returns: np.ndarray) -> np.ndarray:
    """Returns in units of `unit_of(task)`; raises ValueError where there is none."""
    unit = unit_of(task)
    if unit is None:
        raise ValueError(
            f"returns of {task} cannot be normalised: no agreed unit; compare them within the task"
        )
    return np.asarray(returns, np.float64) / unit
