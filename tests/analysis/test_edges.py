"""Statistics of single weights over time, and degrees: against numbers computed by hand."""

import numpy as np
import pytest
from scipy import stats

from mst_jax.analysis import edges
from mst_jax.figures import erdos_renyi_degrees

# One input, four outputs, at steps 0, 10, 20, 30. Weight 0 stays, 1 goes, 2 comes at 10 and goes at
# 30, 3 comes at 20.
MASKS = np.array([[[1, 1, 0, 0]], [[1, 0, 1, 0]], [[1, 0, 1, 1]], [[1, 0, 0, 1]]], bool)
STEPS = np.array([0, 10, 20, 30])


def test_density_churn_and_exploration():
    np.testing.assert_array_equal(edges.densities(MASKS), [0.5, 0.5, 0.75, 0.5])
    np.testing.assert_array_equal(edges.churn(MASKS), [0, 0.5, 0.25, 0.25])
    np.testing.assert_array_equal(edges.explored(MASKS), [0.5, 0.75, 1.0, 1.0])


def test_dead_neurons():
    np.testing.assert_array_equal(edges.without_incoming(MASKS), [0.5, 0.5, 0.25, 0.5])
    np.testing.assert_array_equal(edges.without_outgoing(MASKS), [0, 0, 0, 0])
    np.testing.assert_array_equal(edges.without_outgoing(np.zeros((2, 3, 4), bool)), [1, 1])


def test_survival_of_those_that_came_together():
    np.testing.assert_array_equal(edges.survival(MASKS, 0), [1, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(edges.survival(MASKS, 1), [np.nan, 1, 1, 0])
    np.testing.assert_array_equal(edges.survival(MASKS, 2), [np.nan, np.nan, 1, 1])
    np.testing.assert_array_equal(edges.survival(MASKS, 3), np.full(4, np.nan))  # nothing came


def test_one_that_went_and_came_back_did_not_survive():
    masks = np.array([[[1]], [[0]], [[1]]], bool)
    np.testing.assert_array_equal(edges.survival(masks, 0), [1, 0, 0])
    np.testing.assert_array_equal(edges.ages(masks, STEPS[:3]), [0])


def test_ages_of_the_weights_active_at_the_end():
    np.testing.assert_array_equal(edges.ages(MASKS, STEPS), [30, 10])
    assert edges.ages(np.zeros((2, 1, 3), bool), STEPS[:2]).shape == (0,)
    np.testing.assert_array_equal(edges.ages(MASKS[:1], STEPS[:1]), [0, 0])


def test_ages_agree_with_a_loop():
    masks = np.random.default_rng(0).random((6, 4, 5)) < 0.6
    steps = np.array([0, 3, 4, 10, 20, 21])
    by_hand = []
    for i, j in np.ndindex(4, 5):
        if masks[-1, i, j]:
            t = 5
            while t and masks[t - 1, i, j]:
                t -= 1
            by_hand.append(21 - steps[t])
    np.testing.assert_array_equal(edges.ages(masks, steps), by_hand)


@pytest.mark.parametrize(
    ("partners", "neurons", "active"), [(2, 2, 2), (16, 16, 93), (512, 512, 104_858), (3, 1, 2)]
)
def test_random_degrees_are_hypergeometric(partners, neurons, active):
    found = erdos_renyi_degrees(partners, neurons, active)
    positions = partners * neurons
    expected = stats.hypergeom.pmf(np.arange(partners + 1), positions, active, partners)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    assert found.sum() == pytest.approx(1.0)


def test_random_degrees_by_hand():
    """Two of four positions: both, one or none are the neuron's in 1, 4 and 1 of 6 cases."""
    np.testing.assert_allclose(erdos_renyi_degrees(2, 2, 2), [1 / 6, 4 / 6, 1 / 6])
    np.testing.assert_allclose(erdos_renyi_degrees(2, 2, 0), [1, 0, 0])
    np.testing.assert_allclose(erdos_renyi_degrees(2, 2, 4), [0, 0, 1])
