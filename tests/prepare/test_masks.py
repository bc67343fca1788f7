import numpy as np
import pytest
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.data.masks import CLASSES
from dd_jax.prepare.masks import number_objects, segmenter


@pytest.fixture
def images(picture):
    return np.stack([picture(seed, 96, 160) for seed in range(3)])


def test_masks_match_transformers_pipeline(libraries, segformer, images):
    _, transformers = libraries
    pipeline = transformers.pipeline("image-segmentation", model=segformer, subtask="semantic")
    for image, mask in zip(images, segmenter(segformer)(images), strict=True):
        expected = np.zeros(mask.shape, bool)
        for found in pipeline(Image.fromarray(image)):
            if found["label"] in CLASSES:
                expected |= np.asarray(found["mask"]) > 0
        assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask > 0, expected)


def test_classes_case_insensitive(libraries, segformer, images):
    everything = segmenter(segformer)(images) > np.uint8(0)
    one, others = (segmenter(segformer, classes)(images) for classes in (["Car"], [name for name in CLASSES if name != "car"]))
    np.testing.assert_array_equal(np.maximum(one, others) > 0, everything)
    assert not (np.minimum(one, others) > 0).any()
    with pytest.raises(ConfigError, match=r"has none of --classes=tram,boat: choose from its classes, road, sidewalk"):
        segmenter(segformer, ["tram", "boat"])


def test_semantic_and_instance_networks(libraries, panoptic_network, instance_network, images):
    assert all(set(np.unique(mask)) == {255} for mask in segmenter(panoptic_network)(images))  # predicts car everywhere
    masks = segmenter(instance_network)(images)
    assert all(mask.shape == (96, 160) and mask.dtype == np.uint8 for mask in masks)
    assert max(mask.max() for mask in masks) in range(1, 6)  # it has five queries


def test_only_movers_numbered():
    segmentation = np.array([[-1, 1, 2], [3, 3, 2]])
    segments = [{"id": 1, "label_id": 2}, {"id": 2, "label_id": 9}, {"id": 3, "label_id": 0}]
    np.testing.assert_array_equal(number_objects(segmentation, segments, np.array([0, 2])), [[0, 1, 0], [2, 2, 0]])


def test_more_than_255_objects_share_last_number():
    segmentation = np.arange(300).reshape(3, 100)
    mask = number_objects(segmentation, [{"id": number, "label_id": 0} for number in range(300)], np.array([0]))
    assert mask.min() == 1 and (mask == 255).sum() == 46
