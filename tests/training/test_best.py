import numpy as np
import pytest

from mst_jax.program.evaluation import Evaluation
from mst_jax.training.best import FINAL_INDEX, BestPolicies, evaluate_final


def policies(*values):
    return {"params/kernel": np.array(values, np.float32)[:, None], "masks/kernel": np.ones((3, 1))}


def filled():
    """Three seeds, four evaluations: better, equal, unhealthy, better for another seed."""
    best = BestPolicies(3)
    healthy = np.ones(3, bool)
    best.update(policies(10, 20, 30), np.array([1.0, 5.0, 2.0]), healthy, 0)
    best.update(policies(11, 21, 31), np.array([4.0, 5.0, 1.0]), healthy, 100)
    best.update(policies(12, 22, 32), np.array([9.0, 0.0, 3.0]), np.array([False, True, True]), 200)
    best.update(policies(13, 23, 33), np.array([4.0, 6.0, 3.0]), healthy, 300)
    return best


def test_each_seed_keeps_its_earliest_best_healthy_policy():
    best = filled()
    assert best.returns.tolist() == [4.0, 6.0, 3.0]
    assert best.steps.tolist() == [100, 300, 200]
    assert best.policies["params/kernel"][:, 0].tolist() == [11, 23, 32]


def test_what_is_kept_does_not_change_with_the_arrays_it_came_from():
    best, given = BestPolicies(3), policies(1, 2, 3)
    best.update(given, np.zeros(3), np.ones(3, bool), 0)
    given["params/kernel"][:] = 7
    assert best.policies["params/kernel"][:, 0].tolist() == [1, 2, 3]


def test_arrays_restore_and_continue():
    arrays = filled().to_arrays()
    for array in arrays.values():
        array.flags.writeable = False
    best = BestPolicies(3)
    best.restore(arrays)
    best.update(policies(14, 24, 34), np.array([5.0, 5.0, 5.0]), np.ones(3, bool), 400)
    assert best.steps.tolist() == [400, 300, 400]
    assert best.policies["params/kernel"][:, 0].tolist() == [14, 23, 34]
    with pytest.raises(ValueError, match="no best policies"):
        BestPolicies(3).restore({})


def test_a_policy_without_a_return_is_never_the_best():
    """Fault A4: neither an unhealthy seed's nor one whose episodes have no return."""
    best = BestPolicies(3)
    healthy = np.array([False, True, True])
    best.update(policies(10, 20, 30), np.array([9.0, np.nan, np.inf]), healthy, 0)
    assert best.steps.tolist() == [-1, -1, -1]
    best.update(policies(11, 21, 31), np.array([9.0, -5.0, np.nan]), healthy, 100)
    assert best.steps.tolist() == [-1, 100, -1]
    assert best.policies["params/kernel"][1, 0] == 21


def returns_of_two_policies(states, _):
    returns = np.array([[1.0, 3.0], [0.0, 2.0], [5.0, 5.0]]) * (2 if states == "best" else 1)
    return Evaluation(returns, np.zeros((3, 2)))


HEALTHY = {"last": np.ones(3, bool), "best": np.ones(3, bool)}


def test_both_policies_are_played_on_the_same_fresh_episodes():
    asked = []

    def play(states, index):
        asked.append((states, index))
        return returns_of_two_policies(states, index)

    rows = evaluate_final(play, "last", "best", filled(), HEALTHY)
    assert asked == [("last", FINAL_INDEX), ("best", FINAL_INDEX)]
    assert [row["last/return"] for row in rows] == [2.0, 1.0, 5.0]
    assert [row["best/return"] for row in rows] == [4.0, 2.0, 10.0]
    assert rows[1]["best/returns"].tolist() == [0.0, 4.0]
    assert [row["best/step"] for row in rows] == [100, 300, 200]
    assert [row["best/return_when_chosen"] for row in rows] == [4.0, 6.0, 3.0]
    assert {row["last/episodes"] for row in rows} == {2}


def test_the_final_evaluation_of_a_diverged_seed_has_no_return():
    """Nor has a best policy that is not finite, or was never chosen."""
    chosen = filled()
    chosen.steps[2] = -1
    healthy = {"last": np.array([True, False, True]), "best": np.array([False, True, True])}
    rows = evaluate_final(returns_of_two_policies, "last", "best", chosen, healthy)
    np.testing.assert_array_equal([row["last/return"] for row in rows], [2.0, np.nan, 5.0])
    np.testing.assert_array_equal([row["best/return"] for row in rows], [np.nan, 2.0, np.nan])
    assert [row["best/episodes"] for row in rows] == [0, 2, 0]
    assert rows[2]["best/step"] is None
