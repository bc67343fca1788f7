"""Damage inside JPEG files, and pictures that are blank, dark or repeated, are named; what viewers read is read."""

import io

import cv2
import made_videos
import numpy as np
import pytest
from PIL import Image

from dd_jax.data import frames, picture_faults, video_reader


def jpeg(picture, **options):
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=90, **options)
    return data.getvalue()


KINDS = {"baseline": {}, "progressive": {"progressive": True}, "restart": {"restart_marker_blocks": 8}}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_inside_a_jpeg_is_named(picture, tmp_path, kind):
    data, path = bytearray(jpeg(picture(0, 96, 128), **KINDS[kind])), tmp_path / "a.jpg"
    del data[len(data) // 2 : len(data) // 2 + 400]
    path.write_bytes(data)
    for source, name in ((path, r"a\.jpg"), (bytes(data), "bytes")):
        with pytest.raises(frames.DamagedImage, match=rf"{name} \((Corrupt JPEG data|Inconsistent progression).*\)"):
            frames.decode_whole_image(source)
    assert frames.decode_image(path).shape == (96, 128, 3)  # the fast reader of training completes it


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [lambda data: data, lambda data: data + bytes(5000), lambda data: data[:-2], lambda data: data[:-2] + bytes(6) + data[-2:]],
    ids=["whole", "bytes after the end", "no end mark", "padded"],
)
def test_jpegs_that_viewers_read_are_read(picture, kind, change):
    data = jpeg(picture(0, 96, 128), **KINDS[kind])
    for decode in (frames.decode_image, frames.decode_whole_image):
        np.testing.assert_array_equal(decode(change(data)), frames.decode_image(data))


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_jpegs_with_a_preview_are_unreadable(picture, kind):
    """The end mark of the preview is not the end of the picture."""
    preview = Image.fromarray(picture(1, 24, 32)).getexif()
    preview[0x9286] = jpeg(picture(1, 24, 32))
    data = jpeg(picture(0, 96, 128), exif=preview, **KINDS[kind])
    with pytest.raises(frames.UnreadableFrame):
        frames.decode_image(data[: len(data) * 3 // 4])


def test_faults_of_pictures(picture, tmp_path):
    usual = picture(0, 96, 128)
    assert picture_faults.fault(usual) == ""
    assert picture_faults.fault(np.full_like(usual, 3)) == "black"
    noise = np.random.default_rng(0).integers(0, 3, usual.shape, dtype=np.uint8)
    assert picture_faults.fault(128 + noise) == "of a single colour"
    assert picture_faults.fault(np.full_like(usual, 255)) == "of a single colour"
    assert picture_faults.fault(usual // 8) == "dark, without a value of 64 of 255"
    night = usual // 8
    night[:2, :2] = 200  # a lamp
    assert picture_faults.fault(night) == ""


@pytest.mark.parametrize(("bits", "factor"), [(16, 1), (14, 4), (12, 16), (10, 64)])
def test_unused_bits_of_a_picture_are_named(picture, tmp_path, bits, factor):
    """Full 16 bits are decoded as they were; sensors with fewer bits often store them without scaling."""
    path, usual = tmp_path / "a.png", picture(0, 96, 128)
    cv2.imwrite(str(path), (usual[..., ::-1].astype(np.uint16) * 257) >> (16 - bits))
    image = frames.decode_whole_image(path)
    if bits == 16:
        np.testing.assert_array_equal(image, usual)
        assert picture_faults.fault(image, path) == ""
    else:
        expected = f"dark, because the values use {bits} of 16 bits (multiply them by {factor})"
        assert picture_faults.fault(image, path) == expected


def test_log_counts_faults_and_names_the_first(picture):
    log = picture_faults.PictureLog()
    for name, shown in enumerate([picture(0, 48, 64), picture(1, 48, 64), picture(1, 48, 64), np.zeros((48, 64, 3), np.uint8)]):
        log.add(str(name), shown)
    assert log.sentences() == ["1 of 4 frames are equal to the one before, first 2", "1 of 4 frames are black, first 3"]


@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", {}), ("mpeg4", {"qmin": "3", "qmax": "3"}), ("libx265", {"x265-params": "log-level=none"})]
)
def test_repeated_frames_are_told_after_compression(tmp_path, codec, options):
    """A video converted to a higher rate shows every fourth picture twice; noise between other frames is no repetition."""
    places = [place - place // 5 for place in range(15)]
    noise = np.random.default_rng(0).normal(0, 3, (15, made_videos.HEIGHT, made_videos.WIDTH, 3))
    shown = np.clip(made_videos.views(15) + noise, 0, 255).astype(np.uint8)[places]
    path, log = made_videos.write(tmp_path / "clip.mkv", shown, codec, **options), picture_faults.PictureLog()
    for number, image in enumerate(video_reader.read(path, range(15), lambda place: True)):
        log.add(str(number), image)
    assert log.sentences() == ["2 of 15 frames are equal to the one before, first 5"]
    still = np.clip(made_videos.views(1) + noise[:2], 0, 255).astype(np.uint8)
    assert not picture_faults.equal(still[0], still[1])
