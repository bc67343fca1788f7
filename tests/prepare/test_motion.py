import math

import cv2
import numpy as np
import pytest

from dd_jax.prepare import motion


@pytest.fixture(scope="module")
def wide():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    return cv2.resize(noise, (240, 160), interpolation=cv2.INTER_CUBIC)


def test_motion_equals_image_shift(wide):
    assert motion.compare(wide[:, :200], wide[:, 4:204]).motion == pytest.approx(4 / 200, rel=0.05)
    assert motion.compare(wide, wide).motion < 1e-4


def test_no_corners():
    blank = np.zeros((40, 60), np.uint8)
    found = motion.compare(blank, blank)
    assert found.motion == math.inf and math.isnan(found.parallax)
    assert motion.alignment(blank, blank) is None


def test_parallax_of_rotation_and_two_planes(wide):
    K = np.array([[200.0, 0, 100], [0, 200, 80], [0, 0, 1]])
    R = cv2.Rodrigues(np.array([0.01, 0.02, 0.03]))[0]
    turned = cv2.warpPerspective(wide[:, :200], K @ R @ np.linalg.inv(K), (200, 160))
    assert motion.compare(wide[:, :200], turned).parallax < 0.05
    layers = np.concatenate([wide[:80, 2:202], wide[80:, 8:208]])  # the lower half is nearer: it moves four times as far
    assert 0.25 < motion.compare(wide[:, :200], layers).parallax < 0.75


def test_alignment_recovers_homography(wide):
    H = np.array([[1.02, 0.01, 3], [-0.01, 0.99, -2], [1e-5, 2e-5, 1]])
    found = motion.alignment(wide, cv2.warpPerspective(wide, H, (240, 160)))
    corners = np.array([[[20.0, 20], [220, 20], [20, 140], [220, 140]]])
    np.testing.assert_allclose(cv2.perspectiveTransform(corners, found), cv2.perspectiveTransform(corners, H), atol=0.3)


def test_blurred_frames_found(wide):
    pictures = [np.roll(wide, 3 * step, axis=1) for step in range(12)]
    pictures[5] = cv2.GaussianBlur(pictures[5], (0, 0), 3)
    values = [motion.sharpness(picture) for picture in pictures]
    assert motion.blurred(values) == [5]
    assert motion.blurred(values[:2]) == [] and motion.blurred([1.0]) == []
    fading = [100 * 0.9**step for step in range(30)]  # a scene that slowly loses its texture is not blurred
    assert motion.blurred(fading) == []


def test_shrink_to_tracking_width(picture):
    assert motion.shrink(picture(0, 540, 960)).shape == (270, motion.TRACKING_WIDTH)
