"""Scores that can be averaged over tasks: 0 and 1 are returns that mean the same on each task."""

import re

import numpy as np
from numpy.typing import ArrayLike

# MR.Q's mean returns after 1 M steps (docs/specs/mst-and-mrq.md §4.3), so that 1 is its level.
GYM = {
    "Ant": 6902.0,
    "HalfCheetah": 12940.0,
    "Hopper": 2693.0,
    "Humanoid": 10224.0,
    "Walker2d": 6040.0,
}
DMC = 1000.0  # an episode has 1000 environment steps with rewards in [0, 1]
# Scores of random play and of a human tester on the 26 games of Atari-100k (Wang et al., 2016,
# arXiv 1511.06581, table 2; used by Kaiser et al., 2020, arXiv 1903.00374).
ATARI = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "DemonAttack": (152.1, 1971.0),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Hero": (1027.0, 30826.4),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MsPacman": (307.3, 6951.6),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "RoadRunner": (11.5, 7845.0),
    "Seaquest": (68.4, 42054.7),
    "UpNDown": (533.4, 11693.2),
}


MEANING = {  # what 0 and 1 stand for
    "dmc": "0 is no reward and 1 all there is",
    "gym": "0 is a return of zero and 1 the published one of MR.Q",
    "atari": "0 is random play and 1 a human (human-normalised)",
}


def score_range(task: str) -> tuple[float, float] | None:
    """The returns that count as 0 and as 1 on a task (`suite:name`), or None.

    DeepMind Control tasks (`dmc`, `envpool`): 0 and 1000, but none for LQR, whose returns are
    costs. Gymnasium's MuJoCo tasks (`gym`, `envpool`): 0 and the published return of MR.Q. Atari
    (`atari`): random play and a human. Returns of other tasks must not be averaged over tasks.
    """
    suite, name = _benchmark(task)
    if suite == "dmc":
        return None if name.startswith("lqr") else (0.0, DMC)
    if suite == "gym":
        best = GYM.get(name.partition("-")[0])
        return None if best is None else (0.0, best)
    return ATARI.get(name) if suite == "atari" else None


def meaning(task: str) -> str:
    """What scores of 0 and 1 on a task stand for; the task has a `score_range`."""
    return MEANING[_benchmark(task)[0]]


def normalised(task: str, returns: ArrayLike) -> np.ndarray:
    """Scores, float64: (return - zero) / (one - zero); ValueError without a `score_range`."""
    found = score_range(task)
    if found is None:
        raise ValueError(
            f"returns of {task} cannot be normalised: no agreed range; compare them within the task"
        )
    zero, one = found
    return (np.asarray(returns, np.float64) - zero) / (one - zero)


def _benchmark(task: str) -> tuple[str, str]:
    """(dmc, gym, atari or another suite, name)."""
    suite, _, name = task.partition(":")
    if suite == "envpool":  # it has the tasks of both; only Gymnasium's have a version
        suite = "gym" if re.search(r"-v\d+$", name) else "dmc"
    return suite, name
