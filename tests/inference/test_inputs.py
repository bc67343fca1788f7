"""Inputs of every kind: order, intrinsics, rate, masks and error messages."""

import json
import os
import re

import cv2
import numpy as np
import pytest
import tiny
from odd_pictures import upright

from dd_jax.config import ConfigError
from dd_jax.data import video_camera
from dd_jax.inference import inputs

FRAMES = tiny.frames(12, height=48, width=80)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "drive").mkdir()
    for place, frame in enumerate(FRAMES):
        cv2.imwrite(str(tmp_path / f"drive/f{place}.png"), frame[..., ::-1])
    return tmp_path / "drive"


@pytest.fixture
def clip(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (80, 48))
    for frame in FRAMES:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return tmp_path / "clip.avi"


@pytest.fixture(scope="module")
def drive(drives):
    return next(drives.glob("*/*_sync"))


def all_frames(source):
    return list(source.read(lambda place: True))


def test_folder_in_order_of_names(folder):
    source = inputs.open_source([str(folder)])
    assert source.names == [f"f{place}" for place in range(12)] and source.size == (48, 80) and source.title == "drive"
    np.testing.assert_array_equal(all_frames(source), FRAMES)
    some = list(source.read(lambda place: place == 3))
    assert [place for place, image in enumerate(some) if image is not None] == [3] and len(some) == 12
    assert source.where(3) == str(folder / "f3.png")


@pytest.mark.parametrize(
    ("given", "places"),
    [(["f4.png"], [4]), (["f4.png", "f2.png"], [4, 2]), (["f1*.png"], [1, 10, 11]), (["**/f?.png"], list(range(10)))],
)
def test_images_and_patterns(folder, given, places):
    source = inputs.open_source([str(folder / text) for text in given])
    assert source.names == [f"f{place}" for place in places]
    np.testing.assert_array_equal(all_frames(source), [FRAMES[place] for place in places])


def test_frame_range(folder, clip):
    for given in ([str(folder)], [str(clip)]):
        source = inputs.open_source(given, chosen=slice(3, 10, 3), rate=30.0)
        assert [int(name.strip("f")) for name in source.names] == [3, 6, 9] and source.rate == 10.0
        assert len(all_frames(source)) == 3
        with pytest.raises(ConfigError, match="--frames leaves none of the 12 frames of"):
            inputs.open_source(given, chosen=slice(20, None))


def test_exif_rotation_and_hidden_files(tmp_path):
    for place in range(2):
        upright(tmp_path / f"{place}.jpg", 48, 80)
        (tmp_path / f"._{place}.jpg").write_bytes(b"Mac OS X")
    camera = {"width": 48, "height": 80, "fx": 50.0, "fy": 51.0, "cx": 20.0, "cy": 45.0}
    (tmp_path / "intrinsics.json").write_text(json.dumps(camera))
    source = inputs.open_source([str(tmp_path)])
    assert source.names == ["0", "1"] and source.size == (80, 48)
    assert [image.shape for image in all_frames(source)] == [(80, 48, 3)] * 2
    np.testing.assert_allclose(source.K, [[50, 0, 20], [0, 51, 45], [0, 0, 1]])
    (tmp_path / "intrinsics.json").write_text(json.dumps(camera | {"width": 80, "height": 48}))
    with pytest.raises(ConfigError, match=r"for images of 80 x 48, but .*0.jpg has 48 x 80"):
        inputs.open_source([str(tmp_path)])


def test_video(clip):
    source = inputs.open_source([str(clip)])
    assert source.names == [f"{place:06d}" for place in range(12)]
    assert source.rate == pytest.approx(12) and source.size == (48, 80)
    whole = all_frames(source)
    np.testing.assert_allclose(np.stack(whole).astype(float), FRAMES, atol=90)  # JPEG, coarse blocks
    some = list(source.read(lambda place: place in (2, 5)))
    np.testing.assert_array_equal(some[5], whole[5])
    assert some[3] is None and len(some) == 12


def test_truncated_video_and_video_without_length(clip, tmp_path):
    data = clip.read_bytes()
    images = [found.start() for found in re.finditer(rb"\xff\xd8", data)]
    clip.write_bytes(data[: images[7]])
    source = inputs.open_source([str(clip)])
    assert len(source.names) == len(all_frames(source)) == 7
    assert source.findings[-1].endswith("clip.avi ends 5 frames before its announced length: it is cut off or damaged there")
    (tmp_path / "clip.mjpeg").write_bytes(b"".join(data[start : data.index(b"\xff\xd9", start) + 2] for start in images))
    assert len(inputs.open_source([str(tmp_path / "clip.mjpeg")]).names) == 12


def test_changed_file_has_another_stamp(folder, clip):
    images, video = (inputs.open_source([str(path)]) for path in (folder, clip))
    assert len(images.stamps) == len(video.stamps) == 12 and len(set(video.stamps)) == 1
    (folder / "f3.png").write_bytes((folder / "f4.png").read_bytes())
    again = inputs.open_source([str(folder)])
    assert [place for place in range(12) if again.stamps[place] != images.stamps[place]] == [3]
    os.utime(clip, (1, 1))
    assert inputs.open_source([str(clip)]).stamps[0] != video.stamps[0]


def test_kitti_drive(drive):
    source = inputs.open_source([str(drive)])
    height, width = source.size
    assert source.names[:2] == ["0000000000", "0000000001"] and "calibration of the drive" in source.camera and source.rate == 10
    assert source.K[0, 0] > 0.5 * width and 0.3 * width < source.K[0, 2] < 0.7 * width
    masks = inputs.masks_of(source, None)
    expected = cv2.imread(str(drive / "mask_02/data/0000000001.png"), cv2.IMREAD_UNCHANGED) > 0
    np.testing.assert_array_equal(masks(1), expected)
    assert masks(1).shape == (height, width)
    speeds = inputs.speeds_of(source)
    poses = np.loadtxt(drive / "poses.txt").reshape(-1, 3, 4)[:, :, 3]
    driven = np.linalg.norm(np.diff(poses, axis=0), axis=1) * 10
    np.testing.assert_allclose(speeds[1:], driven, rtol=0.2, atol=0.2)
    truth = next(inputs.truths_of(source, drive / "proj_depth/groundtruth/image_02"))
    assert truth.shape == (height, width) and truth.max() > 5
    assert inputs.open_source([str(drive)], camera=2).names == source.names
    with pytest.raises(ConfigError, match=r"--camera=3 is for KITTI drives: .* has no folder image_03"):
        inputs.open_source([str(drive)], camera=3)


@pytest.mark.parametrize("given", [{}, {"fov": 90.0}, {"intrinsics": (50.0, 51.0, 40.0, 24.0)}])
def test_intrinsics_from_flags_file_or_guess(folder, given):
    source = inputs.open_source([str(folder)], **given)
    expected = given.get("intrinsics") or video_camera.from_fov(given.get("fov", 60.0), 80, 48)
    np.testing.assert_allclose(source.K[[0, 1, 0, 1], [0, 1, 2, 2]], expected, rtol=1e-6)
    assert ("60 degrees" in source.camera) == (not given)
    camera = {"width": 160, "height": 96, "fx": 100.0, "fy": 100.0, "cx": 79.5, "cy": 47.5}
    (folder / "intrinsics.json").write_text(json.dumps(camera))
    source = inputs.open_source([str(folder)], **given)
    if not given:
        np.testing.assert_allclose(source.K, [[50, 0, 39.5], [0, 50, 23.5], [0, 0, 1]])
    assert ("intrinsics.json" in source.camera) == (not given)


def test_masks_and_ground_truth_by_frame_name(folder, tmp_path):
    source = inputs.open_source([str(folder)], chosen=slice(0, 3))
    assert inputs.masks_of(source, None)(0) is None
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "more/f1.npy", np.eye(48, 80))
    masks = inputs.masks_of(source, tmp_path / "more")
    assert masks(0) is None and masks(1).sum() == 48
    truths = list(inputs.truths_of(source, tmp_path / "more"))
    assert truths[0] is None and truths[1].shape == (48, 80) and truths[2] is None
    (tmp_path / "more/f1.npy").write_bytes(b"no array")
    with pytest.raises(ConfigError, match=r"f1.npy cannot be decoded"):
        masks(1)
    with pytest.raises(ConfigError, match=r"f1.npy is not a complete array"):
        list(inputs.truths_of(source, tmp_path / "more"))
    for flag, function in (("--masks", inputs.masks_of), ("--truth", inputs.truths_of)):
        with pytest.raises(ConfigError, match=f"{flag}=.*nothing is not a folder"):
            function(source, tmp_path / "nothing")


def test_unreadable_inputs_raise(folder, tmp_path):
    def raises(message, *given, **options):
        with pytest.raises(ConfigError, match=message):
            all_frames(inputs.open_source([str(text) for text in given], **options))

    raises("absent.png does not exist: name images, a folder, a pattern in quotes, a video or a KITTI drive", "absent.png")
    (tmp_path / "text.mp4").write_text("no video")
    raises("text.mp4 can be read neither as an image .* nor as a video: give another file", tmp_path / "text.mp4")
    alone = "text.mp4 is not a .png, .jpg, .jpeg image: give a folder or a video as the only input"
    raises(alone, folder / "f1.png", tmp_path / "text.mp4")
    (tmp_path / "empty").mkdir()
    raises("empty has no .png, .jpg, .jpeg images", tmp_path / "empty")
    (tmp_path / "f1.png").write_bytes((folder / "f1.png").read_bytes())
    raises("two of the images are named f1", folder / "f1.png", tmp_path / "f1.png")
    raises("principal point cx=400 cy=20 lies outside the image of 80 x 48", folder, intrinsics=(50.0, 50.0, 400.0, 20.0))
    for rate in (np.inf, np.nan, 0.0, -5.0, 5000.0):
        raises(f"--rate={rate:g} must be frames per second, between 0.001 and 1000", folder, rate=rate)
    raises("--fov=190 must lie between 0 and 180 degrees", folder, fov=190.0)
    data = (folder / "f2.png").read_bytes()
    (folder / "f2.png").write_bytes(data[: len(data) // 2])
    raises("the image .*f2.png is damaged or cut off: replace or remove it, then run this again", folder)
    with pytest.raises(ConfigError, match="--speed=oxts is for KITTI drives"):
        inputs.speeds_of(inputs.open_source([str(folder)]))


def test_drive_without_speed_raises(drive, tmp_path):
    source = inputs.open_source([str(drive)], chosen=slice(0, 2))
    elsewhere = inputs.dataclasses.replace(source, drive=tmp_path)
    with pytest.raises(ConfigError, match=r"oxts/data does not exist: unpack the oxts files .*, or give --speed in m/s"):
        inputs.speeds_of(elsewhere)
    (tmp_path / "oxts/data").mkdir(parents=True)
    (tmp_path / "oxts/data/0000000007.txt").write_text("0 " * 30)
    with pytest.raises(ConfigError, match=r"none of the 1 oxts files in .* has a frame's name: .* needs 0000000000.txt"):
        inputs.speeds_of(elsewhere)
    (tmp_path / "oxts/data/0000000000.txt").write_text("0 1 2")
    with pytest.raises(
        ConfigError, match=r"oxts/data/0000000000.txt has no speed in column 9: remove it, or give --speed in m/s"
    ):
        inputs.speeds_of(elsewhere)


def test_frame_without_oxts_file_has_no_speed_and_is_counted(drive, tmp_path, caplog):
    source = inputs.open_source([str(drive)], chosen=slice(0, 3))
    complete = inputs.speeds_of(source)
    assert not caplog.records
    folder = tmp_path / "oxts/data"
    folder.mkdir(parents=True)
    for name in (source.names[0], source.names[2]):
        (folder / f"{name}.txt").write_text((drive / f"oxts/data/{name}.txt").read_text())
    assert inputs.speeds_of(inputs.dataclasses.replace(source, drive=tmp_path)) == [complete[0], None, complete[2]]
    assert "1 of 3 frames have no file in" in caplog.text and "the first is 0000000001: they take the median scale" in caplog.text


@pytest.mark.parametrize("name", ["f{}_mask.png", "f{:06d}.png", "f{}.jpg"])
def test_masks_and_truth_that_match_no_frame_are_refused(folder, tmp_path, name):
    source = inputs.open_source([str(folder)])
    (tmp_path / "more").mkdir()
    for flag, function, kind in (("--masks", inputs.masks_of, "masks"), ("--truth", inputs.truths_of, "maps")):
        with pytest.raises(
            ConfigError, match=rf"more has no {kind}: the first frame needs f0.npy or f0.png: .* leave out {flag}"
        ):
            function(source, tmp_path / "more")
    for place in range(12):
        cv2.imwrite(str(tmp_path / "more" / name.format(place)), np.zeros((48, 80), np.uint8))
    for flag, function, kind in (("--masks", inputs.masks_of, "masks"), ("--truth", inputs.truths_of, "maps")):
        with pytest.raises(ConfigError) as error:
            function(source, tmp_path / "more")
        said = (
            f"none of the 12 {kind} in {tmp_path / 'more'} has a frame's name: the first is {name.format(0)}, and the first frame"
        )
        assert said in str(error.value) and str(error.value).endswith(f"f0.npy or f0.png: name them so, or leave out {flag}")
    (tmp_path / "more" / name.format(0)).rename(tmp_path / "more/f0.png")  # as it says
    inputs.masks_of(source, tmp_path / "more")


def test_missing_masks_are_counted(folder, tmp_path, caplog):
    source = inputs.open_source([str(folder)])
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "more/f1.npy", np.eye(48, 80))
    inputs.masks_of(source, tmp_path / "more")
    assert "11 of 12 frames have no file in" in caplog.text and "the first is f0: they count as frames without" in caplog.text


def test_masks_and_truth_of_other_proportions_are_refused(tmp_path):
    """Masks of the stored orientation, beside pictures that EXIF turns."""
    upright(tmp_path / "0.jpg", 48, 80)
    source = inputs.open_source([str(tmp_path)])
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "more/0.npy", np.eye(48, 80))
    with pytest.raises(
        ConfigError, match=r"the object mask .*0.npy has 80 x 48 pixels, other proportions than its image of 48 x 80"
    ):
        inputs.masks_of(source, tmp_path / "more")(0)
    with pytest.raises(ConfigError, match=r"0.npy has 80 x 48 pixels, other proportions than its frame of 48 x 80: write it for"):
        next(inputs.truths_of(source, tmp_path / "more"))
    np.save(tmp_path / "more/0.npy", np.eye(160, 96))  # as it says; of another size
    assert inputs.masks_of(source, tmp_path / "more")(0).shape == (80, 48)
    assert next(inputs.truths_of(source, tmp_path / "more")).shape == (160, 96)


def test_truth_in_eight_bits_says_what_helps_here(folder, tmp_path):
    source = inputs.open_source([str(folder)], chosen=slice(0, 1))
    (tmp_path / "more").mkdir()
    truth = np.full((48, 80), 20, np.uint8)
    cv2.imwrite(str(tmp_path / "more/f0.png"), truth)
    message = (
        r"f0.png \(8 bits per value, grey\) is not a 16-bit grey PNG, or is incomplete: write 256 x the metres in 16 bits there,"
    )
    with pytest.raises(ConfigError, match=message):
        next(inputs.truths_of(source, tmp_path / "more"))
    cv2.imwrite(str(tmp_path / "more/f0.png"), truth.astype(np.uint16) * 256)  # as it says
    assert next(inputs.truths_of(source, tmp_path / "more")).max() == 20
