import pickle

import cv2
import numpy as np
import pytest
from odd_pictures import bomb, upright
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.data import frames


@pytest.fixture
def file(tmp_path, picture):
    def write(name):
        path = tmp_path / name
        assert cv2.imwrite(str(path), picture(0, 48, 64)[..., ::-1])
        return path

    return write


def test_png_decodes_to_rgb(file, picture):
    np.testing.assert_array_equal(frames.decode_image(file("a.png")), picture(0, 48, 64))


def test_jpg_decodes_approximately(file, picture):
    error = np.abs(frames.decode_image(file("a.jpg")).astype(int) - picture(0, 48, 64))
    assert error.mean() < 3


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97])
def test_truncated_images_unreadable(file, suffix, share):
    path = file(f"a.{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    for decode in (frames.decode_image, frames.decode_mask):
        with pytest.raises(frames.UnreadableFrame, match=rf"a\.{suffix}"):
            decode(path)


def test_absent_and_foreign_files_unreadable(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for name in ("absent.png", "text.png"):
        with pytest.raises(frames.UnreadableFrame):
            frames.decode_image(tmp_path / name)
        with pytest.raises(frames.UnreadableFrame):
            frames.decode_mask(tmp_path / name)
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(frames.UnreadableFrame):
        frames.decode_mask(tmp_path / "bad.npy")


def test_implausible_image_size_unreadable(tmp_path):
    for decode in (frames.decode_image, frames.decode_mask, lambda path: frames.decode_mask(path, "cityscapes")):
        with pytest.raises(frames.UnreadableFrame, match=r"bomb\.png"):
            decode(bomb(tmp_path / "bomb.png"))


def test_first_readable_image_and_decoded_size(file, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert frames.first_readable([tmp_path / "a.png", file("b.png")]) == (tmp_path / "b.png", (48, 64))
    assert frames.first_readable([upright(tmp_path / "c.jpg", 48, 64)]) == (tmp_path / "c.jpg", (64, 48))
    assert frames.first_readable([tmp_path / "a.png"]) is None


def test_mask_types_agree(tmp_path):
    expected = np.random.default_rng(0).random((20, 30)) < 0.3
    variants = {
        "bool.npy": expected,
        "one.npy": expected.astype(np.uint8),
        "full.npy": expected.astype(np.uint8) * 255,
        "float.npy": expected.astype(np.float32),
        "wide.npy": expected.astype(np.int64),
    }
    for name, array in variants.items():
        np.save(tmp_path / name, array)
        np.testing.assert_array_equal(frames.decode_mask(tmp_path / name), expected, err_msg=name)
    for name, array in {"one.png": expected * 1, "full.png": expected * 255, "ids.png": expected * 7}.items():
        cv2.imwrite(str(tmp_path / name), array.astype(np.uint8))
        np.testing.assert_array_equal(frames.decode_mask(tmp_path / name), expected, err_msg=name)


class Bomb:
    """Unpickling it has a visible effect."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("kind", ["pickle", "objects", "zip", "huge", "cut", "empty", "text", "no pixel"])
def test_hostile_arrays_unreadable_without_unpickling(tmp_path, kind):
    path = tmp_path / "mask.npy"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "objects":
        np.save(path, np.array([[Bomb()]], object), allow_pickle=True)
    elif kind == "zip":
        with path.open("wb") as file:
            np.savez(file, np.ones((4, 4)))
    elif kind == "huge":
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    elif kind == "cut":
        np.save(path, np.ones((9, 9)))
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        np.save(path, np.array([["a"]]))
    else:
        np.save(path, np.ones((0, 5)))
    with pytest.raises(frames.UnreadableFrame, match=r"mask.npy"):
        frames.decode_mask(path)


def test_prior_arrays_scaled_images_unchanged(tmp_path):
    rng = np.random.default_rng(0)
    inverse = rng.uniform(0.01, 3, (20, 30)).astype(np.float32)
    inverse[3, 4], inverse[5, 6], inverse[7, 8] = np.nan, -1, np.inf
    np.save(tmp_path / "float.npy", inverse)
    prior = frames.decode_prior(tmp_path / "float.npy")
    assert (prior[3, 4], prior[5, 6], prior[7, 8]) == (0, 0, 0) and prior.max() == 65535
    usable = np.isfinite(inverse) & (inverse > 0)
    np.testing.assert_allclose(prior[usable] / 65535, inverse[usable] / inverse[usable].max(), atol=1e-5)
    stored = rng.integers(0, 2**16, (20, 30), dtype=np.uint16)
    np.save(tmp_path / "whole.npy", stored)
    cv2.imwrite(str(tmp_path / "whole.png"), stored)
    for name in ("whole.npy", "whole.png"):
        np.testing.assert_array_equal(frames.decode_prior(tmp_path / name), stored)
    cv2.imwrite(str(tmp_path / "small.png"), (stored // 256).astype(np.uint8))
    np.testing.assert_array_equal(frames.decode_prior(tmp_path / "small.png"), stored // 256 * 257)


def test_empty_priors_unreadable(tmp_path):
    np.save(tmp_path / "zero.npy", np.zeros((4, 4), np.float32))
    np.save(tmp_path / "signed.npy", np.ones((4, 4), np.int32))
    np.save(tmp_path / "three.npy", np.ones((4, 4, 3), np.float32))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    cv2.imwrite(str(tmp_path / "zero16.png"), np.zeros((4, 4), np.uint16))
    cv2.imwrite(str(tmp_path / "zero8.png"), np.zeros((4, 4), np.uint8))
    for name in ("zero.npy", "signed.npy", "three.npy", "text.npy", "absent.npy", "zero16.png", "zero8.png"):
        with pytest.raises(frames.UnreadableFrame, match=name):
            frames.decode_prior(tmp_path / name)


def test_proportions_tolerance():
    assert frames.same_proportions((375, 1242), (192, 640)) and frames.same_proportions((10, 20), (11, 21))
    assert not frames.same_proportions((10, 20), (20, 10)) and not frames.same_proportions((10, 20), (10, 24))


def test_misfit_names_mask_and_sizes():
    picture = frames.DecodedFrame(np.zeros((32, 64, 3), np.uint8), np.zeros((32, 200), bool))
    assert frames.misfit(picture, "m.png") == ["m.png (200x32, its image 64x32)"]
    for mask in (None, np.zeros((64, 128), bool)):
        assert frames.misfit(frames.DecodedFrame(picture.image, mask), "m.png") == []


def test_resize_mask_matches_pil_nearest():
    mask = np.random.default_rng(0).random((37, 53)) < 0.5
    expected = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((64, 32), Image.Resampling.NEAREST)).astype(bool)
    np.testing.assert_array_equal(frames.resize_mask(mask, 32, 64), expected)


def test_area_resize_averages_blocks(picture):
    image = picture(0, 64, 128)
    blocks = image.reshape(32, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(frames.resize_image(image, 32, 64, "area") - blocks).max() <= 0.5


def test_lanczos_matches_pil(picture):
    image = picture(0, 50, 90)
    expected = np.asarray(Image.fromarray(image).resize((64, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(frames.resize_image(image, 32, 64, "lanczos"), expected)


def test_intrinsics_scale_with_image():
    """A bright pixel that becomes a block: the scaled intrinsics map its centre to the block's centre."""
    K = frames.intrinsics(100.0, 120.0, 10.0, 7.0, (24, 40), (72, 160), "here")
    np.testing.assert_allclose(K, [[400, 0, 41.5], [0, 360, 22], [0, 0, 1]], rtol=1e-6)
    image = np.zeros((24, 40), np.uint8)
    image[7, 10] = 1
    rows, columns = np.nonzero(np.kron(image, np.ones((3, 4))))
    assert (columns.mean(), rows.mean()) == (K[0, 2], K[1, 2])


@pytest.mark.parametrize(
    "values, complaint",
    [
        ((0.0, 10.0, 5.0, 5.0), "cam.txt.*fx=0 fy=10"),
        ((10.0, -1.0, 5.0, 5.0), "fy=-1"),
        ((10.0, 10.0, 40.0, 5.0), "cx=40 cy=5.*40 x 24: correct the intrinsics there"),
        ((10.0, 10.0, 5.0, -0.5), "cy=-0.5"),
        ((float("nan"), 10.0, 5.0, 5.0), "fx=nan"),
        ((10.0, float("inf"), 5.0, 5.0), "fy=inf must be positive and finite: correct the intrinsics there"),
        ((10.0, 10.0, 5.0, float("nan")), "cy=nan"),
    ],
)
def test_invalid_intrinsics_raise(values, complaint):
    with pytest.raises(ConfigError, match=complaint):
        frames.intrinsics(*values, (24, 40), (32, 64), "cam.txt")


def test_cut_thirds_and_upper_rows():
    image = np.arange(8)[:, None] * 100 + np.arange(9)
    np.testing.assert_array_equal(frames.cut(image, (1 / 3, 2 / 3, 0.0, 1.0)), image[:, 3:6])
    np.testing.assert_array_equal(frames.cut(image, (0.0, 1.0, 0.0, 0.75)), image[:6])
