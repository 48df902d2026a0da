import itertools
import math

import numpy as np
import pytest
import scipy.stats as distributions

from mst_jax.analysis import statistics as st


def test_iqm_leaves_out_a_quarter_at_each_end_rounded_down():
    assert st.iqm([np.array([0.0, 1, 2, 100])]) == 1.5
    assert st.iqm([np.array([0.0, 1, 2]), np.array([3.0, 4])]) == 2.0  # 5 runs: one of each end
    assert st.iqm([np.array([7.0])]) == 7.0


def test_mean_and_median_give_every_task_the_same_weight():
    scores = [np.array([0.0, 0, 0, 0]), np.array([1.0]), np.array([2.0, 6.0])]
    assert st.mean(scores) == pytest.approx(5 / 3)
    assert st.median(scores) == 1.0
    assert st.median([np.array([1.0, 2, 30])]) == 2.0


def test_optimality_gap_ignores_what_is_above_the_target():
    assert st.optimality_gap([np.array([0.5, 3.0])]) == 0.25
    assert st.optimality_gap([np.array([5.0, 3.0])], target=4.0) == 0.5


def test_probability_of_improvement_is_mann_whitney_u():
    x, y = np.array([1.0, 2, 3]), np.array([2.0, 0])
    # (1>2, 1>0, 2=2, 2>0, 3>2, 3>0) = 0 + 1 + 1/2 + 1 + 1 + 1 of six
    assert st.probability_of_improvement([x], [y]) == pytest.approx(4.5 / 6)
    assert st.probability_of_improvement([y], [x]) == pytest.approx(1.5 / 6)
    assert st.probability_of_improvement([x, y], [x, y]) == 0.5


def test_performance_profile_counts_runs_above_each_threshold():
    profile = st.performance_profile([np.array([0.0, 1.0]), np.array([2.0, 2.0])], np.arange(3.0))
    np.testing.assert_array_equal(profile, [0.75, 0.5, 0.0])


@pytest.mark.parametrize("name", ["mean", "median", "iqm", "optimality_gap"])
def test_resamples_together_are_resamples_one_by_one(name):
    rng = np.random.default_rng(0)
    batch = [rng.random((5, 4)), rng.random((5, 3))]
    together = getattr(st, name)(batch)
    assert together.shape == (5,)
    alone = [getattr(st, name)([task[i] for task in batch]) for i in range(5)]
    np.testing.assert_allclose(together, alone)


def test_comparisons_of_resamples_together_are_those_one_by_one():
    rng = np.random.default_rng(0)
    x, y = [rng.random((5, 4))], [rng.random((5, 3))]
    together = st.probability_of_improvement(x, y)
    alone = [st.probability_of_improvement([x[0][i]], [y[0][i]]) for i in range(5)]
    np.testing.assert_allclose(together, alone)
    thresholds = np.array([0.2, 0.5])
    assert st.performance_profile(x, thresholds).shape == (5, 2)


def test_the_interval_of_a_mean_is_its_closed_form():
    scores = [np.random.default_rng(1).normal(10.0, 3.0, 400), np.full(5, 2.0)]
    found = st.estimate(st.mean, scores, resamples=20_000)
    # The second task has no spread, and the tasks count equally.
    error = scores[0].std() / math.sqrt(400) / 2
    assert found.value == pytest.approx(scores[0].mean() / 2 + 1.0)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.05 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.05 * error)


def test_the_bootstrap_of_two_runs_is_enumerable():
    # Resampled means of (0, 1) are 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    found = st.estimate(st.mean, [np.array([0.0, 1.0])], resamples=4_000, confidence=0.4)
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)
    found = st.estimate(st.mean, [np.array([0.0, 1.0])], resamples=4_000, confidence=0.6)
    assert (found.low, found.high) == (0.0, 1.0)


def test_strata_are_resampled_apart():
    found = st.estimate(st.mean, [np.zeros(6), np.full(6, 4.0)])
    assert found == (2.0, 2.0, 2.0)


def test_a_report_can_be_made_again():
    scores = [np.random.default_rng(0).random(8)]
    assert st.estimate(st.iqm, scores) == st.estimate(st.iqm, scores)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = [
        found.low <= 0.0 <= found.high
        for found in (
            st.estimate(st.mean, [rng.normal(size=20), rng.normal(size=20)], resamples=400, seed=i)
            for i in range(400)
        )
    ]
    assert 0.90 < np.mean(hits) < 0.97


def test_paired_differences_by_hand():
    x, y = [np.array([3.0, 5.0]), np.array([1.0, 1.0])], [np.array([1.0, 2.0]), np.array([1.0, 0])]
    found = st.paired(x, y)
    assert found.difference.value == pytest.approx((2.5 + 0.5) / 2)
    assert (found.pairs, found.wins) == (4, 3.5 / 4)
    # |±2 ±3 ±0 ±1| / 4 >= 1.5 for all signs alike of the three that are not zero: 4 of 16.
    assert found.p_value == 4 / 16


def test_sign_flips_are_exact_where_they_are_few_and_sampled_beyond():
    rng = np.random.default_rng(3)
    few = rng.normal(0.5, 1.0, st.EXACT_PAIRS)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(few))))
    exact = (np.abs(signs @ few) >= abs(few.sum()) - 1e-9).mean()
    assert st.paired([few], [np.zeros_like(few)]).p_value == pytest.approx(exact)
    many = np.full(40, 1.0)
    assert st.paired([many], [0 * many]).p_value == pytest.approx(2.0**-st.EXACT_PAIRS)


def test_no_difference_is_no_evidence():
    same = [np.array([1.0, 2, 3])]
    found = st.paired(same, same)
    assert (found.difference.value, found.wins, found.p_value) == (0.0, 0.5, 1.0)


def test_a_diverged_run_loses_against_every_other_and_ties_with_its_like():
    """Fault A1: leaving out its diverged runs must not make a group look better."""
    nan = np.nan
    x, y = (
        [np.array([9.0, nan, nan]), np.array([nan])],
        [np.array([1.0, 2.0, nan]), np.array([nan])],
    )
    ranked = st.with_worst(x, y)
    assert all(np.isfinite(side[0]).all() for side in ranked)
    assert ranked[0][0][1] == ranked[0][0][2] == ranked[1][0][2] < 1.0
    assert st.wins(*ranked) == (1.0 + 0.0 + 0.5 + 0.5) / 4
    # By hand, of nine: 9 beats all three; each diverged run loses twice and ties once.
    assert st.probability_of_improvement(*ranked) == pytest.approx(((3 + 0.5 + 0.5) / 9 + 0.5) / 2)
    huge = st.with_worst([np.array([1e300, nan])], [np.array([1e300, 1e300])])
    assert huge[0][0][1] < 1e300, "also where a difference of one is lost"


@pytest.mark.parametrize(
    ("effect", "pairs", "seeds"),
    # Numbers of the t-test at level 0.05 and power 0.8 (tables of Cohen, and G*Power).
    [
        *((0.5, False, 64), (0.8, False, 26), (1.0, False, 17), (0.5, True, 34), (0.8, True, 15)),
        *((1.5, False, 9), (2.0, False, 6), (3.0, False, 4), (1.5, True, 6)),
    ],
)
def test_seeds_needed_are_those_of_the_t_test(effect, pairs, seeds):
    """Fault E2: large effects, where the normal approximation says one seed too few."""
    assert st.seeds_needed(effect, 1.0, pairs=pairs) == seeds
    assert st.seeds_needed(-effect * 100, 100.0, pairs=pairs) == seeds


def power_by_integration(count, effect, pairs, level):
    """Power of the t-test without the noncentral t distribution: an integral over the deviation."""
    freedom = count - 1 if pairs else 2 * count - 2
    shift = effect * math.sqrt(count if pairs else count / 2)
    critical = distributions.t.ppf(1 - level / 2, freedom)
    ratio = np.linspace(1e-9, 6.0, 60_001)  # estimated over true deviation
    density = distributions.chi.pdf(ratio * math.sqrt(freedom), freedom) * math.sqrt(freedom)
    normal = distributions.norm
    found = normal.sf(critical * ratio - shift) + normal.cdf(-critical * ratio - shift)
    return np.trapezoid(found * density, ratio)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("effect", [0.3, 0.9, 1.5, 2.0, 3.0, 8.0])
@pytest.mark.parametrize(("power", "confidence"), [(0.8, 0.95), (0.5, 0.68), (0.95, 0.99)])
def test_seeds_needed_agree_with_an_integral(effect, pairs, power, confidence):
    found = st.seeds_needed(effect, 1.0, power=power, confidence=confidence, pairs=pairs)
    at = [power_by_integration(n, effect, pairs, 1 - confidence) for n in (found, found - 1)]
    assert at[0] >= power - 1e-6
    assert found == 2 or at[1] < power


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="at least one task"):
        st.estimate(st.mean, [])
    with pytest.raises(ValueError, match="at least one run"):
        st.estimate(st.mean, [np.array([])])
    with pytest.raises(ValueError, match="must be finite"):
        st.estimate(st.mean, [np.array([1.0, np.nan])])
    with pytest.raises(ValueError, match="same seeds"):
        st.paired([np.ones(2)], [np.ones(3)])
    with pytest.raises(ValueError, match="must not be zero"):
        st.seeds_needed(0.0, 1.0)


def rliable(module):
    """A module of rliable; skips where it is not installed or its arch cannot be imported.

    Fault E1: with pandas 3 that is a TypeError, which `importorskip` lets through.
    """
    pandas = pytest.importorskip("pandas")
    if int(pandas.__version__.split(".")[0]) > 2:
        pytest.skip("rliable needs pandas<3: pip install -e '.[rliable]'")
    return pytest.importorskip(f"rliable.{module}")


def test_aggregates_are_those_of_rliable():
    metrics = rliable("metrics")
    matrix = np.random.default_rng(4).random((7, 5))  # runs x tasks
    tasks = list(matrix.T)
    assert st.iqm(tasks) == pytest.approx(metrics.aggregate_iqm(matrix))
    assert st.mean(tasks) == pytest.approx(metrics.aggregate_mean(matrix))
    assert st.median(tasks) == pytest.approx(metrics.aggregate_median(matrix))
    assert st.optimality_gap(tasks) == pytest.approx(metrics.aggregate_optimality_gap(matrix))
    other = np.random.default_rng(5).random((6, 5))
    ours = st.probability_of_improvement(tasks, list(other.T))
    assert ours == pytest.approx(metrics.probability_of_improvement(matrix, other))


def test_profiles_and_intervals_are_those_of_rliable():
    library, metrics = rliable("library"), rliable("metrics")
    matrix = np.random.default_rng(6).random((10, 3))
    thresholds = np.linspace(0.0, 1.0, 5)
    theirs = [library.run_score_deviation(matrix, threshold) for threshold in thresholds]
    np.testing.assert_allclose(st.performance_profile(list(matrix.T), thresholds), theirs)
    _, intervals = library.get_interval_estimates(
        {"a": matrix}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=4_000
    )
    found = st.estimate(st.iqm, list(matrix.T), resamples=4_000)
    np.testing.assert_allclose([found.low, found.high], intervals["a"][:, 0], atol=0.02)
