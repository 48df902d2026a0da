"""The map from [-1, 1] to bounds."""

import numpy as np
import pytest

from mst_jax.envs.host.actions import affine, continuous
from mst_jax.envs.spaces import Continuous


def test_action_bounds_that_are_not_symmetric():
    offset, scale = affine(np.array([-1.0, 0.0, -3.0, -1e10]), np.array([1.0, 4.0, 1.0, 1e10]))
    np.testing.assert_array_equal(offset, [0, 2, -1, 0])
    np.testing.assert_array_equal(scale, [1, 2, 2, 1])  # no limits: as it is


def test_float32_bounds_are_mapped_in_float64():
    offset, scale = affine(np.float32([-0.4]), np.float32([0.4]))
    assert offset.dtype == scale.dtype == np.float64
    np.testing.assert_allclose(scale, 0.4, rtol=1e-7)


def test_the_space_says_what_the_ends_stand_for_if_it_is_something_else():
    ones = np.ones(2, np.float32)
    assert continuous(*affine(-ones, ones)) == Continuous(2)
    assert continuous(*affine(-1e10 * ones, 1e10 * ones)) == Continuous(2)
    four = Continuous(1, (-0.4,), (0.4,))
    for kind in (np.float32, np.float64):
        assert continuous(*affine(np.array([-0.4], kind), np.array([0.4], kind))) == four
    mixed = continuous(*affine(np.array([-1.0, 0.0]), np.array([1.0, np.inf])))
    assert mixed == Continuous(2, (-1.0, 0.0), (1.0, 2.0))


@pytest.mark.parametrize(
    ("bounds", "driven"),
    [
        ((0, np.inf), (0, 2)),
        ((0, 1e11), (0, 2)),
        ((5.3, np.inf), (5.3, 7.3)),
        ((-5, np.inf), (-1, 1)),
        ((-np.inf, -3), (-5, -3)),
        ((-np.inf, 0.25), (-1.75, 0.25)),
        ((-np.inf, 7), (-1, 1)),
        ((-np.inf, np.inf), (-1, 1)),
    ],
)
def test_an_actuator_bounded_on_one_side_stays_within(bounds, driven):
    """Fault D17."""
    offset, scale = affine(*(np.array([bound], np.float64) for bound in bounds))
    ends = offset + scale * np.array([[-1.0], [1.0]])
    np.testing.assert_allclose(ends[:, 0], driven, rtol=1e-12)
