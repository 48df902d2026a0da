"""Pictures of Atari games: areas by hand, and OpenCV's and Gymnasium's to the byte."""

import numpy as np
import pytest

from mst_jax.envs.suites.atari_pictures import Screen, area_weights, resized


def test_areas_by_hand():
    """Five pixels to two: each covers two and a half."""
    indices, weights = area_weights(2, 5)
    assert indices.T.tolist() == [[0, 1, 2], [2, 3, 4]]
    np.testing.assert_allclose(weights.T, [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]], rtol=1e-6)
    frame = np.array([[0, 10, 20, 30, 40]] * 5, np.uint8)
    np.testing.assert_array_equal(resized(frame, *[(indices, weights)] * 2), [[8, 32]] * 2)


@pytest.mark.parametrize("covered", [160, 210, 214, 230, 250])
def test_weights_are_an_average(covered):
    indices, weights = area_weights(84, covered)
    np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-6)
    total = np.zeros(covered)
    np.add.at(total, indices, weights)
    np.testing.assert_allclose(total, 84 / covered, rtol=1e-5)


@pytest.mark.parametrize("height", [210, 214, 230, 250])
def test_opencvs_bytes(height):
    cv2 = pytest.importorskip("cv2")
    generator, screen = np.random.default_rng(0), Screen(height, 160)
    for levels in (2, 4, 256):  # few levels have many halves, which rounding must treat alike
        screen.frames[0] = generator.integers(0, levels, (height, 160))
        expected = cv2.resize(screen.frames[0], (84, 84), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(screen.picture(), expected)


def test_frames_that_were_not_read_stay():
    screen = Screen(84, 84)
    screen.frames[:] = [[[50]], [[90]]]
    screen.pool()
    assert (screen.picture() == 90).all()
    screen.frames[0] = 30  # a step of three frames reads the first only
    screen.pool()
    assert (screen.picture() == 90).all()
    screen.frames[:] = [[[30]], [[40]]]
    screen.pool()
    assert (screen.picture() == 40).all()
