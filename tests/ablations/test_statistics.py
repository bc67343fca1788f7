import numpy as np
import pytest

from dd_jax.ablations.statistics import Estimate, estimate, per_seed, spread


def mean(x):
    return x


def test_paired_difference_weighs_drives_by_their_images():
    ours, theirs = np.array([[0.2, 0.5], [0.4, 0.7]]), np.array([[0.1, 0.1], [0.2, 0.2]])
    images = np.array([3, 1])
    found = estimate(images, np.subtract, ours, theirs)
    assert found.value == pytest.approx((3 * 0.1 + 0.4 + 3 * 0.2 + 0.5) / 8)
    np.testing.assert_allclose(per_seed(images, ours), [(3 * 0.2 + 0.5) / 4, (3 * 0.4 + 0.7) / 4])


def test_differences_common_to_both_rows_cancel():
    rng = np.random.default_rng(0)
    theirs = rng.normal(0.3, 0.1, (3, 10))
    found = estimate(np.full(10, 58), np.subtract, theirs - 0.02, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((-0.02, -0.02, -0.02)) and found.clear


def test_ratio_of_means():
    found = estimate(np.array([1, 1]), lambda a, b: 1 - a / b, np.array([[0.1, 0.3]]), np.array([[0.2, 0.6]]))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(("seeds", "drives"), [(3, 10), (5, 20)])
def test_interval_covers_the_truth_about_as_often_as_it_says(seeds, drives):
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        errors = 0.3 + rng.normal(0, 0.02, (1, drives)) + rng.normal(0, 0.005, (seeds, 1)) + rng.normal(0, 0.01, (seeds, drives))
        found = estimate(np.full(drives, 58), mean, errors)
        covered += found.low < 0.3 < found.high
    assert 0.87 <= covered / 200 <= 0.99


def test_more_frames_of_the_same_drives_do_not_narrow_the_interval():
    errors = np.random.default_rng(0).normal(0.3, 0.02, (3, 10))
    images = np.arange(1, 11)
    few, many = (estimate(factor * images, mean, errors) for factor in (1, 100))
    assert (many.low, many.high) == pytest.approx((few.low, few.high)) and few.high - few.low > 0.005


def test_more_drives_narrow_the_interval():
    rng = np.random.default_rng(0)
    widths = []
    for drives in (10, 160):
        found = estimate(np.full(drives, 5), mean, rng.normal(0.3, 0.02, (1, drives)).repeat(3, 0))
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)


def test_noise_between_seeds_widens_the_interval():
    by_seed = np.array([[-0.03], [0.0], [0.03]])
    found = [estimate(np.full(10, 5), mean, 0.3 + factor * by_seed.repeat(10, 1)) for factor in (0, 1)]
    assert found[0].high - found[0].low < 1e-9 and found[1].high - found[1].low > 0.03


def test_one_drive_has_no_interval_and_is_never_clear():
    found = estimate(np.array([7]), mean, np.array([[0.3], [0.5]]))
    assert found.value == pytest.approx(0.4) and found.low is found.high is None and not found.clear


def test_interval_that_touches_zero_is_not_clear():
    assert not Estimate(0.1, 0.0, 0.2).clear and not Estimate(0.1, -0.1, 0.2).clear
    assert Estimate(0.1, 0.05, 0.2).clear and Estimate(-0.1, -0.2, -0.05).clear


def test_spread_needs_two_seeds():
    assert spread(np.array([0.1])) is None and spread(np.array([0.1, 0.3])) == pytest.approx(0.02**0.5)
