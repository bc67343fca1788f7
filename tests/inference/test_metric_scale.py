"""Scale factors of every source of metric scale."""

import itertools

import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.evaluation import metrics
from dd_jax.inference.metric_scale import MOST_WAITING, CameraHeight, Median, Prediction, Scaler, Speed, scaled

EVAL = tiny.config(eval={"crop": "none"}).eval
K = np.array([[60, 0, 47.5], [0, 60, 20.0], [0, 0, 1]], np.float32)


def road(height):
    """Inverse depth of a level road, ``height`` below the camera, and of a wall behind it."""
    v = np.arange(64, dtype=np.float32)[:, None] - K[1, 2]
    return np.broadcast_to(np.maximum(v / (K[1, 1] * height), 0.05), (64, 96)).astype(np.float32)


def prediction(seed=0, distance=None, inverse_depth=None):
    rng = np.random.default_rng(seed)
    T = None
    if distance is not None:
        T = np.eye(4, dtype=np.float32)
        T[:3, 3] = distance * np.array([0.6, 0, 0.8])
    found = rng.uniform(0.1, 2, (64, 96)).astype(np.float32) if inverse_depth is None else inverse_depth
    return Prediction(found, T, "student")


def factors(scale, predictions):
    scaler = Scaler(scale, EVAL)
    return [scaler.factor(one, K) for one in predictions]


def test_number_is_the_factor():
    assert factors(2.5, [prediction(), prediction()]) == [2.5, 2.5] and factors(3, [prediction()]) == [3.0]


def test_median_equals_evaluation():
    one, truth = prediction(), np.random.default_rng(1).uniform(0, 70, (90, 150)).astype(np.float32)
    truth[:30] = 0
    expected = metrics.evaluate_image(one.inverse_depth, truth, {}, EVAL)["scale"]["ratio"]
    assert factors(Median(truth), [one]) == [expected]


def test_frames_without_ground_truth_use_running_median():
    truths = [None, np.full((9, 9), 10.0), np.full((9, 9), 20.0), np.zeros((9, 9)), None]
    flat = [prediction(inverse_depth=np.ones((64, 96), np.float32))] * 6  # a frame more than there are truths
    assert factors(Median(truths), flat) == pytest.approx([None, 10, 20, 15, 15, 15])
    assert factors(Median(np.full((9, 9), 10.0)), flat[:2]) == pytest.approx([10, 10])


def test_camera_height():
    heights = [0.5, 0.25, 1.0]
    found = factors(CameraHeight(2.0), [prediction(inverse_depth=road(height)) for height in heights])
    np.testing.assert_allclose(found, [4, 6, 4], rtol=1e-3)  # 4, 8 and 2, and the medians of those so far


def test_speed():
    found = factors(Speed(10.0, rate=5.0), [prediction(), prediction(distance=0.5), prediction(distance=1.0)])
    assert found == pytest.approx([None, 4, 3])  # 2 m in units of 0.5 and 1
    speeds = [10.0, 0.1, -10.0, np.nan, 1e300]  # standing, backwards, unknown
    distances = [None, 0.5, 0.25, 0.5, 0.0]
    found = factors(Speed(speeds, rate=5.0), [prediction(distance=d) for d in distances])
    assert found == pytest.approx([None, None, 8, 8, 8])


def test_speed_over_several_frames():
    """The distance is the sum over the frames since the previous one: 2 s at the mean speed."""
    scaler = Scaler(Speed([90.0, 10.0, 20.0, 6.0, np.nan, 10.0], rate=1.0), EVAL, frame_step=2)
    found = [scaler.factor(prediction(distance=d), K) for d in (None, None, 10.0, 13.0, 1.0, 1.0)]
    assert found == pytest.approx([None, None, 3.0, 2.5, 2.5, 2.5])  # 30 m, 26 m, unknown, unknown
    assert Scaler(Speed(10.0, rate=5.0), EVAL, frame_step=4).factor(prediction(distance=2.0), K) == pytest.approx(4)  # 8 m


def test_first_frames_wait_for_a_factor():
    items = list(zip("abcd", [prediction(), *(prediction(distance=d) for d in (0.0, 0.5, 1.0))]))
    found = [(item, factor) for item, _, factor in scaled(items, Scaler(Speed(10.0, 5.0), EVAL), K)]
    assert found == [("a", 4), ("b", 4), ("c", 4), ("d", 3)]


def test_stream_without_scale_raises():
    standing = itertools.repeat((0, prediction(distance=0.0)))
    with pytest.raises(ConfigError, match=f"the first {MOST_WAITING} frames do not determine the scale: Speed"):
        list(scaled(standing, Scaler(Speed(10.0, 5.0), EVAL), K))
    with pytest.raises(ConfigError, match="the first 2 frames do not determine the scale: Median needs ground truth"):
        list(scaled([(0, prediction())] * 2, Scaler(Median([None]), EVAL), K))
    assert list(scaled([], Scaler(Median([None]), EVAL), K)) == []


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, "scale must be a positive number: it is 0.0"),
        (float("nan"), "scale must be a positive number: it is nan"),
        (CameraHeight(1.65, 95.0), "the camera pitch is 95.0: give degrees downwards, between"),
        (1e300, r"scale is 1e\+300: it must lie between 1e-30 and 1e\+30"),
        (CameraHeight(1e-300), "the camera height is 1e-300: it must lie between 1e-30 and"),
        (Speed(1e300, rate=10.0), r"the speed is 1e\+300 metres per second: give a possible one"),
        (CameraHeight(-1.0), "the camera height must be a positive number: it is -1.0"),
        (Speed(3.0, rate=0.0), "the frame rate must be a positive number: it is 0.0"),
        (True, "scale=True is not a number, Median, CameraHeight or Speed"),
    ],
)
def test_invalid_scales_raise(scale, message):
    with pytest.raises(ConfigError, match=message):
        Scaler(scale, EVAL)


def test_ground_truth_of_other_shape_raises():
    for truth in (np.ones((3, 3, 3)), np.ones((0, 3))):
        with pytest.raises(ConfigError, match=r"Median takes a depth map in metres.*: each must be a two-dimensional array"):
            factors(Median([truth]), [prediction()])
