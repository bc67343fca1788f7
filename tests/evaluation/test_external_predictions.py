import pickle

import cv2
import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.data.frames import GroundTruth
from dd_jax.evaluation import crops
from dd_jax.evaluation.external_predictions import check_kind, check_view, open_predictions

KITTI = [f"2011_09_26/2011_09_26_drive_0002_sync {frame} l" for frame in (69, 54, 42)]
CITYSCAPES = [f"munich munich_000000_{frame:06d}" for frame in (19, 29, 39)]
CLIP = [f"{frame:06d}" for frame in (7, 8, 9)]

RNG = np.random.default_rng(0)
MAPS = [RNG.uniform(2, 60, (6, 9)).astype(np.float32) for _ in range(3)]


def save(folder, stems, maps=MAPS):
    folder.mkdir(exist_ok=True)
    for stem, values in zip(stems, maps, strict=True):
        np.save(folder / f"{stem}.npy", values)
    return folder


def refusal(place, names=KITTI, kind="depth", ask=None):
    with pytest.raises(ConfigError) as error:
        found = open_predictions(place, names, kind)
        if ask is not None:
            found(ask)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (KITTI, ["0000", "0001", "0002"]),
        (KITTI, ["000000", "000001", "000002"]),
        (KITTI, ["0000000000", "0000000001", "0000000002"]),
        (KITTI, ["2011_09_26_drive_0002_sync_69_l", "2011_09_26_drive_0002_sync_54_l", "2011_09_26_drive_0002_sync_42_l"]),
        (CITYSCAPES, ["munich_000000_000019", "munich_000000_000029", "munich_000000_000039"]),
        (CITYSCAPES, ["munich_munich_000000_000019", "munich_munich_000000_000029", "munich_munich_000000_000039"]),
        (CLIP, ["000007", "000008", "000009"]),
        (CLIP, ["000000", "000001", "000002"]),
    ],
)
def test_files_found_under_every_naming_scheme(tmp_path, names, stems):
    save(tmp_path / "out", stems)
    (tmp_path / "out" / "readme.txt").write_text("not a prediction")
    found = open_predictions(tmp_path / "out", names, "depth")
    for index, depth in enumerate(MAPS):
        np.testing.assert_allclose(found(index), 1 / depth, rtol=1e-6)


def test_files_named_by_frame_may_be_a_superset(tmp_path):
    """The predictions cover a whole clip, the split only a part."""
    save(tmp_path / "out", [f"{frame:06d}" for frame in range(12)], [np.full((2, 3), 1 + frame) for frame in range(12)])
    found = open_predictions(tmp_path / "out", CLIP, "disparity")
    assert [found(index)[0, 0] for index in range(3)] == [8, 9, 10]


def test_depth_and_disparity_in_all_formats(tmp_path):
    save(tmp_path / "npy", ["000000", "000001", "000002"], [MAPS[0][None, None], MAPS[1].astype(np.float64), MAPS[2][..., None]])
    (tmp_path / "png").mkdir()
    for index, values in enumerate(MAPS):
        cv2.imwrite(str(tmp_path / "png" / f"{index:010d}.png"), (values * 256).round().astype(np.uint16))
    np.save(tmp_path / "all.npy", np.stack(MAPS)[:, None])
    for place, tolerance in (("npy", 1e-6), ("png", 2e-3), ("all.npy", 1e-6)):
        for kind in ("depth", "disparity"):
            found = open_predictions(tmp_path / place, KITTI, kind)
            for index, values in enumerate(MAPS):
                assert found(index).dtype == np.float32
                np.testing.assert_allclose(found(index), 1 / values if kind == "depth" else values, rtol=tolerance)


def test_missing_files_raise(tmp_path):
    assert "neither a folder nor" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no .npy or .png files: give the folder of the predictions" in refusal(tmp_path / "empty")
    save(tmp_path / "out", ["000000", "000002"], MAPS[:2])
    assert "lacks the predictions of 1 of 3 samples, the first is 000001.npy or .png" in refusal(tmp_path / "out")
    said = refusal(save(tmp_path / "other", ["a", "b", "c"]))
    assert "2011_09_26_drive_0002_sync_69_l.npy or 000000.npy" in said and "3 of 3" in said
    assert "--predictions_are=metres is not one of depth, disparity" in refusal(tmp_path / "out", kind="metres")


def test_wrong_number_of_predictions_raises(tmp_path):
    save(tmp_path / "out", [f"{index:06d}" for index in range(5)], MAPS + MAPS[:2])
    assert "has 5 predictions for the 3 samples" in refusal(tmp_path / "out")
    np.save(tmp_path / "all.npy", np.stack(MAPS[:2]))
    assert "shape [2, 6, 9], but one map for each of the 3 samples is needed" in refusal(tmp_path / "all.npy")
    np.save(tmp_path / "one.npy", MAPS[0])
    assert "shape [6, 9]" in refusal(tmp_path / "one.npy")


def test_two_files_for_one_sample_raise(tmp_path):
    save(tmp_path / "out", ["0000", "0001", "0002"])
    cv2.imwrite(str(tmp_path / "out" / "0001.png"), np.ones((2, 2), np.uint16))
    assert "two predictions of one sample, 0001.npy and 0001.png" in refusal(tmp_path / "out")


@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.nan, "NaN or inf"), (np.inf, "NaN or inf"), (1e300, "NaN or inf"), (0, "zero or neg"), (-1, "zero or neg"),
     (1e-40, "zero or neg")],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["depth", "disparity"])
def test_invalid_values_raise(tmp_path, value, problem, kind):
    bad = MAPS[1].astype(np.float64)
    bad[3, 4] = value
    folder = save(tmp_path / "out", ["0000", "0001", "0002"], [MAPS[0], bad, MAPS[2]])
    said = refusal(folder, kind=kind, ask=1)
    assert f"0001.npy: 1 of 54 values are {problem}" in said and "row 3, column 4" in said
    open_predictions(folder, KITTI, kind)(0)  # the others are valid


def test_png_with_missing_values_raises(tmp_path):
    gaps = (MAPS[0] * 256).astype(np.uint16)
    gaps[0] = 0
    (tmp_path / "out").mkdir()
    cv2.imwrite(str(tmp_path / "out" / "0000.png"), gaps)
    assert "9 of 54 values are zero or negative" in refusal(tmp_path / "out", KITTI[:1], ask=0)
    cv2.imwrite(str(tmp_path / "out" / "0000.png"), gaps.astype(np.uint8))
    said = refusal(tmp_path / "out", KITTI[:1], ask=0)
    assert "0000.png (8 bits per value, grey) is not a 16-bit grey PNG" in said and "KITTI" not in said
    assert said.endswith("write 256 x the values in 16 bits there, or the values themselves into an .npy")
    cv2.imwrite(str(tmp_path / "out" / "0000.png"), (MAPS[0] * 256).astype(np.uint16))  # as it says
    np.testing.assert_allclose(open_predictions(tmp_path / "out", KITTI[:1], "depth")(0), 1 / MAPS[0], rtol=2e-3)


class Trap:
    """Prints if it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("content", ["pickle", "objects", "empty", "cut off", "archive", "text"])
def test_damaged_and_hostile_files_raise_without_unpickling(tmp_path, content, capsys):
    folder = save(tmp_path / "out", ["0000", "0001", "0002"])
    path = folder / "0001.npy"
    match content:
        case "pickle":
            path.write_bytes(pickle.dumps(Trap()))
        case "objects":
            np.save(path, np.array([[Trap()]], object), allow_pickle=True)
        case "empty":
            path.write_bytes(b"")
        case "cut off":
            path.write_bytes(path.read_bytes()[:-20])
        case "archive":
            np.savez(folder / "archive.npz", a=MAPS[0])
            (folder / "archive.npz").rename(path)
        case _:
            np.save(path, np.array([["a", "b"]]))
    said = refusal(folder, ask=1)
    assert "0001.npy" in said and ("not a complete array of numbers" in said or "not numbers" in said)
    assert capsys.readouterr().out == ""


def test_wrong_shapes_raise(tmp_path):
    folder = save(tmp_path / "out", ["0000", "0001", "0002"], [np.ones((2, 3, 4)), MAPS[1], MAPS[2] + 1j])
    assert "shape [2, 3, 4], not that of a map" in refusal(folder, ask=0)
    assert "complex64 values, not numbers" in refusal(folder, ask=2)


def test_map_of_another_part_of_the_image_raises():
    truth, trained = np.zeros((48, 128), np.float32), (64, 192)
    for fits in ((48, 128), (12, 32), (96, 256), (64, 192), (32, 96)):
        check_view(np.ones(fits, np.float32), truth, "a", trained)
    with pytest.raises(ConfigError, match="prediction for a has 64 x 128 pixels, its ground truth 48 x 128: both must show"):
        check_view(np.ones((64, 128), np.float32), truth, "a", trained)


def test_map_of_other_proportions_raises():
    """As of the whole Cityscapes frame, whose lower rows are not evaluated; a network may see all of it squashed."""
    truth, squashed = np.zeros((48, 128), np.float32), np.ones((64, 128 + 8), np.float32)
    message = (
        "a has 64 x 136 pixels, its ground truth 48 x 128, other proportions: .* --config.data.height and --config.data.width"
    )
    with pytest.raises(ConfigError, match=message):
        check_view(squashed, truth, "a", (64, 192))
    check_view(squashed, truth, "a", (64, 128))  # as it says


@pytest.mark.parametrize(
    ("size", "whole", "places"),
    [
        ((352, 1216), (375, 1242), "[23:375, 13:1229] (KITTI's benchmark crop)"),
        ((352, 1216), (370, 1226), "[18:370, 5:1221] (KITTI's benchmark crop)"),
        (
            (218, 1153),
            (375, 1242),
            "[153:371, 44:1197] (the crop of Garg et al.) or [124:342, 44:1197] (the crop of Eigen et al.)",
        ),
        ((512, 1664), (768, 2048), "[256:768, 192:1856] (ManyDepth's crop of Cityscapes)"),
    ],
)
def test_map_of_a_crop_in_use_is_named_and_fits_where_it_says(size, whole, places):
    truth, cropped = np.ones(whole, np.float32), np.full(size, 0.5, np.float32)
    with pytest.raises(ConfigError) as error:
        check_view(cropped, truth, "a", (192, 640))
    assert f"is the size of a crop: write each map to its place in a map of the whole image, {places}," in str(error.value)
    for region in crops.named(size, whole).values():
        filled = np.ones(whole, np.float32)
        filled[region] = cropped
        check_view(filled, truth, "a", (192, 640))
    assert not crops.named(whole, whole)


@pytest.mark.parametrize("kind", ["depth", "disparity"])
def test_depth_given_as_disparity_is_refused_and_the_reverse(kind):
    settings = tiny.config(eval={"crop": "none"}).eval
    depths = RNG.uniform(2, 60, (4, 24, 36)).astype(np.float32)
    noisy = 1 / (depths * RNG.uniform(0.7, 1.4, depths.shape).astype(np.float32))

    def truth_of(index):
        return None if index == 3 else GroundTruth(depths[index])

    check_kind(lambda index: noisy[index], truth_of, range(4), kind, settings)
    other = {"depth": "disparity", "disparity": "depth"}[kind]
    message = rf"--predictions_are={kind} is wrong: .* \(correlation -0.9\d over 3 images\): set --predictions_are={other}"
    with pytest.raises(ConfigError, match=message):
        check_kind(lambda index: 1 / noisy[index], truth_of, range(4), kind, settings)
    for unrelated in (np.ones((4, 24, 36), np.float32), RNG.permuted(noisy, axis=2)):  # a bad network is not refused
        check_kind(lambda index, maps=unrelated: maps[index], truth_of, range(4), kind, settings)
    check_kind(lambda index: 1 / noisy[index], lambda index: None, range(4), kind, settings)
