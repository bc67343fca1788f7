import numpy as np
import pytest
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.prepare import priors
from dd_jax.prepare.priors import estimator


@pytest.fixture
def images(picture):
    return np.stack([picture(seed, 96, 160) for seed in range(2)])


def test_priors_match_transformers_pipeline(libraries, depth_anything, images):
    _, transformers = libraries
    pipeline = transformers.pipeline("depth-estimation", model=depth_anything)
    for image, prior in zip(images, estimator(depth_anything)(images), strict=True):
        expected = np.clip(pipeline(Image.fromarray(image))["predicted_depth"].numpy(), 0, None)
        assert prior.dtype == np.uint16 and prior.shape == (96, 160) and prior.max() == 65535
        np.testing.assert_allclose(prior / 65535, expected / expected.max(), atol=1e-4)


def test_depth_is_inverted(libraries, depth_anything, images):
    inverse, depth = (estimator(depth_anything, says)(images)[0].astype(float) for says in ("inverse", "depth"))
    usable = inverse > 655
    order = np.argsort(inverse[usable])
    assert usable.any() and (np.diff(depth[usable][order]) <= 1).all()  # larger inverse depth is smaller depth


def test_metric_networks_recognised_by_config(libraries, depth_anything, images, tmp_path):
    _, transformers = libraries
    network = transformers.AutoModelForDepthEstimation.from_pretrained(depth_anything)
    network.config.depth_estimation_type, network.config.max_depth = "metric", 80
    network.save_pretrained(tmp_path)
    transformers.AutoImageProcessor.from_pretrained(depth_anything).save_pretrained(tmp_path)
    for auto, said in zip(estimator(str(tmp_path))(images), estimator(str(tmp_path), "depth")(images), strict=True):
        np.testing.assert_array_equal(auto, said)


def test_invalid_says_raises():
    with pytest.raises(ConfigError, match=r"--says=disparity is not one of auto, depth, inverse"):
        estimator("anything", says="disparity")


def test_no_positive_value_gives_none():
    assert priors._stored(np.full((2, 2), -1.0), depth=False) is None
    assert priors._stored(np.zeros((2, 2)), depth=True) is None
    np.testing.assert_array_equal(priors._stored(np.array([[1.0, 2.0, 0.0]]), depth=True), [[65535, 32768, 0]])
