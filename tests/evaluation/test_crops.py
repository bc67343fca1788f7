import numpy as np

from dd_jax.evaluation.crops import cityscapes_crop, crop, garg_crop


def test_garg_crop_of_kitti():
    assert garg_crop((375, 1242)) == (slice(153, 371), slice(44, 1197))


def test_cityscapes_crop_of_native_size():
    assert cityscapes_crop((768, 2048)) == (slice(256, 768), slice(192, 1856))


def test_crop_by_name():
    assert crop("eigen", (375, 1242)) == garg_crop((375, 1242))
    assert crop("cityscapes", (768, 2048)) == cityscapes_crop((768, 2048))
    image = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(image[crop("none", image.shape)], image)
