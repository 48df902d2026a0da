"""Statistics over seeds and tasks, with stratified bootstrap intervals, in vectorised NumPy.

Scores are a sequence of arrays, one for each task (a stratum), of shape (..., R): leading axes are
bootstrap resamples, R are runs, and tasks may have different numbers of them. Estimators follow
Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021).
"""

import bisect
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypedDict, Unpack

import numpy as np
from scipy.special import ncfdtr, stdtrit

Scores = Sequence[np.ndarray]
Estimator = Callable[..., np.ndarray]  # scores of one or more groups -> (...,)

RESAMPLES = 2_000
CONFIDENCE = 0.95
EXACT_PAIRS = 12  # up to here all 2^n sign flips are tried, beyond as many random ones


class Bootstrap(TypedDict, total=False):
    """Arguments of `estimate` that others hand on to it."""

    resamples: int
    confidence: float
    seed: int


class Estimate(NamedTuple):
    """A value and its percentile bootstrap interval; arrays where the estimator returns arrays."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Paired(NamedTuple):
    """Differences x - y of runs with the same task and seed.

    Attributes:
        difference: mean over tasks of the mean difference, with its interval.
        pairs: how many pairs there are.
        wins: share of pairs in which x is higher; a tie counts half.
        p_value: two-sided, of the mean difference under random signs; smallest possible 2^(1-n).
    """

    difference: Estimate
    pairs: int
    wins: float
    p_value: float


def mean(scores: Scores) -> np.ndarray:
    """Mean over tasks of each task's mean."""
    return np.mean([task.mean(axis=-1) for task in scores], axis=0)


def median(scores: Scores) -> np.ndarray:
    """Median over tasks of each task's mean; with one task the median of its runs."""
    if len(scores) == 1:
        return np.median(scores[0], axis=-1)
    return np.median([task.mean(axis=-1) for task in scores], axis=0)


def iqm(scores: Scores) -> np.ndarray:
    """Interquartile mean of all runs: the lowest and highest quarter, rounded down, are left out.

    Runs are pooled, so a task with more runs weighs more.
    """
    runs = np.sort(np.concatenate(scores, axis=-1), axis=-1)
    cut = runs.shape[-1] // 4
    return runs[..., cut : runs.shape[-1] - cut].mean(axis=-1)


def optimality_gap(scores: Scores, target: float = 1.0) -> np.ndarray:
    """Mean over tasks of how far runs stay below `target`; runs above it count as zero."""
    return mean([np.maximum(target - task, 0.0) for task in scores])


def probability_of_improvement(x: Scores, y: Scores) -> np.ndarray:
    """Mean over tasks of P(a run of x > a run of y), a tie counting half: Mann-Whitney's U / nm."""
    tasks = []
    for ours, theirs in zip(x, y, strict=True):
        difference = ours[..., :, None] - theirs[..., None, :]
        tasks.append((0.5 * (np.sign(difference) + 1.0)).mean(axis=(-2, -1)))
    return np.mean(tasks, axis=0)


def performance_profile(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """Share of all runs above each threshold: (..., T) for thresholds (T,)."""
    runs = np.concatenate(scores, axis=-1)
    return (runs[..., None, :] > thresholds[:, None]).mean(axis=-1)


def estimate(
    estimator: Estimator,
    *groups: Scores,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """An estimator's value and its stratified percentile bootstrap interval.

    Within every task of every group, runs are drawn with replacement; tasks are not resampled.
    With fewer than about five runs a task the interval is too narrow, and with one it is a point.

    Args:
        estimator: of as many groups as are given, over leading axes.
        *groups: scores; one group for an aggregate, two for a comparison.
        resamples: bootstrap resamples.
        confidence: of the interval.
        seed: of the resampling, so that a report can be made again.

    Returns:
        The estimate.

    Raises:
        ValueError: a group without tasks, a task without runs, or a score that is not finite.
    """
    for group in groups:
        _check(group)
    rng = np.random.default_rng(seed)
    drawn = [[_resample(task, resamples, rng) for task in group] for group in groups]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(estimator(*drawn), [tail, 1.0 - tail], axis=0)
    return Estimate(np.asarray(estimator(*groups)), low, high)


def paired(x: Scores, y: Scores, **bootstrap: Unpack[Bootstrap]) -> Paired:
    """Compares runs pairwise: entry i of a task is the same seed in x and in y.

    The sign-flip test supposes that under no difference each pair is as likely the other way round;
    unlike the interval it stays honest with few seeds.

    Raises:
        ValueError: a task with different numbers of runs, and as `estimate`.
    """
    differences = []
    for ours, theirs in zip(x, y, strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(
                f"paired comparison needs the same seeds on both sides; a task has {len(ours)} "
                f"and {len(theirs)} runs"
            )
        differences.append(ours - theirs)
    found = estimate(mean, differences, **bootstrap)
    count = sum(map(len, differences))
    return Paired(found, count, wins(x, y), _sign_flip(differences, abs(float(found.value))))


def wins(x: Scores, y: Scores) -> float:
    """Share of pairs (entry i of a task, in x and in y) in which x is higher; a tie counts half."""
    signs = [np.sign(ours - theirs) for ours, theirs in zip(x, y, strict=True)]
    return float((0.5 * (np.concatenate(signs) + 1.0)).mean())


def with_worst(x: Scores, y: Scores) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Both groups with every NaN, a diverged run, below all finite runs of its task.

    For statistics that only rank runs, `wins` and `probability_of_improvement`: a diverged run then
    loses against every finite one and ties with another diverged one, so that a group gains nothing
    by losing its worst runs (worst-rank scores; Lachin, 1999, Controlled Clinical Trials 20).

    Args:
        x: scores, (R,) each.
        y: scores of the same tasks, (Q,) each.
    """
    replaced: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for pair in zip(x, y, strict=True):
        lowest = min(float(np.min(runs[~np.isnan(runs)], initial=np.inf)) for runs in pair)
        worst = np.nextafter(lowest, -np.inf)
        for side, runs in zip(replaced, pair, strict=True):
            side.append(np.where(np.isnan(runs), worst, runs))
    return replaced


def seeds_needed(
    difference: float,
    deviation: float,
    *,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
    pairs: bool = False,
) -> int:
    """Seeds (of each side, or pairs) for a t-test to find a true difference with this power.

    The smallest number whose power, of the two-sided test by the noncentral t distribution, is at
    least that: exact up to some 100,000 seeds, and to five digits beyond.

    Args:
        difference: of the means, not zero.
        deviation: standard deviation over seeds; with `pairs` that of the paired differences.
        power: probability to find it.
        confidence: 1 - the test's two-sided level.
        pairs: whether runs are compared seed by seed.

    Raises:
        ValueError: for a difference of zero or a negative deviation.
    """
    if difference == 0 or deviation < 0:
        raise ValueError(
            f"difference={difference} must not be zero and deviation={deviation} not negative"
        )
    if deviation == 0:
        return 2
    power_of = partial(
        _power, effect=abs(difference) / deviation, level=1.0 - confidence, pairs=pairs
    )
    enough = 2
    while power_of(enough) < power:
        enough *= 2
    return 2 + bisect.bisect_left(range(2, enough), power, key=power_of)


def _power(count: int, effect: float, level: float, pairs: bool) -> float:
    """Probability that a two-sided t-test of so many seeds finds an effect in deviations.

    The square of a noncentral t is a noncentral F, whose one tail is both tails of the t.
    """
    freedom = count - 1 if pairs else 2 * (count - 1)
    shift = effect**2 * (count if pairs else count / 2)
    critical = stdtrit(freedom, 1.0 - level / 2.0) ** 2
    return float(1.0 - ncfdtr(1.0, freedom, min(shift, 1e12), critical))  # NaN far beyond 1e12


def _check(group: Scores) -> None:
    if not len(group):
        raise ValueError("statistics need at least one task")
    for task in group:
        if not task.shape[-1]:
            raise ValueError("statistics need at least one run of every task")
        if not np.all(np.isfinite(task)):
            raise ValueError("scores must be finite; a diverged run counts with a score you choose")


def _resample(task: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    return task[rng.integers(task.size, size=(resamples, task.size))]


def _sign_flip(differences: Scores, observed: float) -> float:
    """Share of sign assignments whose |mean over tasks| is at least the observed one."""
    sizes = [len(task) for task in differences]
    weights = np.concatenate([np.full(n, 1.0 / (n * len(sizes))) for n in sizes])
    terms = np.concatenate(differences) * weights
    count = len(terms)
    if count <= EXACT_PAIRS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=count)))
    else:
        rng = np.random.default_rng(0)
        signs = rng.choice((-1.0, 1.0), size=(2**EXACT_PAIRS, count))
        signs[0] = 1.0  # what was observed is one of the possibilities
    tolerance = 1e-12 * max(1.0, float(np.abs(terms).sum()))
    return float((np.abs(signs @ terms) >= observed - tolerance).mean())
