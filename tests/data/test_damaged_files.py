"""Damaged files that fuzzing has found are refused in one sentence; nothing is allocated that only a head claims."""

import io
import json
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.config.schema import LONGEST_MESSAGE
from dd_jax.data import arrays, camera_check, folder, frames, masks, picture_faults
from dd_jax.data.cityscapes import files
from dd_jax.data.kitti import calibration, timestamps
from dd_jax.diagnosis import true_poses
from dd_jax.evaluation import external_predictions
from dd_jax.inference.predict import Records
from dd_jax.report import read_history
from dd_jax.runtime.files import parse_json

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)


def npy(head, body=bytes(96)):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def png(width, height, depth=8, colour=2, content=b"x"):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def gif(width, height):
    data = io.BytesIO()
    Image.fromarray(PICTURE).save(data, "GIF")
    return b"GIF87a" + struct.pack("<HH", width, height) + data.getvalue()[10:]


def jpeg(width, height):
    data = bytearray(cv2.imencode(".jpg", PICTURE)[1].tobytes())
    place = data.find(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


HEADS = {
    "open bracket": b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6, }\n",
    "nested": b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 300 + b"}\n",
    "larger than the file": b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000), }\n",
    "larger than any": b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808, 6), }\n",
    "negative": b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 6), }\n",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 3), }\n",
    "no text": b"\xff\xfe\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_array_with_damaged_head(head, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(npy(head))
    with pytest.raises(frames.UnreadableFrame, match=r"a\.npy"):
        frames.decode_mask(path)
    with pytest.raises(ConfigError, match=r"a\.npy is not a complete array"):
        external_predictions.open_predictions(path, ["x"], "depth")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", npy(head))
        with pytest.raises(arrays.DamagedArray):
            arrays.load_member(archive, "a")


def test_whole_array_in_an_archive():
    file = io.BytesIO()
    np.savez(file, a=PICTURE)
    with zipfile.ZipFile(file) as archive:
        np.testing.assert_array_equal(arrays.load_member(archive, "a"), PICTURE)


@pytest.mark.parametrize(
    "data", [png(100_000, 100_000), png(20_000, 20_000, 16), png(20_000, 20_000, 1, 0), jpeg(65_000, 65_000), gif(65_320, 255)]
)
def test_picture_larger_than_its_bytes_can_hold(data, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)  # it would allocate
    for decode in (frames.decode_image, frames.decode_whole_image, frames.decode_depth, frames.decode_mask):
        with pytest.raises(frames.UnreadableFrame):
            decode(data)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("picture", [np.zeros((900, 1200, 3), np.uint8), np.zeros((900, 1200), np.uint8), PICTURE])
def test_whole_pictures_are_plausible(suffix, picture):
    data = cv2.imencode(suffix, picture)[1].tobytes()
    assert picture_faults.size_is_plausible(data)
    assert frames.decode_image(data).shape[:2] == picture.shape[:2]
    if suffix == ".png" and picture.ndim == 2:
        for bilevel in (0, 1):  # a mask without objects is the smallest file
            smallest = cv2.imencode(suffix, picture, [cv2.IMWRITE_PNG_BILEVEL, bilevel, cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
            assert picture_faults.size_is_plausible(smallest.tobytes())


def test_chunk_longer_than_its_png(monkeypatch):
    data = bytearray(cv2.imencode(".png", PICTURE)[1].tobytes())
    data[33] = 0x40  # the length of the pixels: a gigabyte
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(frames.UnreadableFrame):
        frames.decode_image(bytes(data))


@pytest.mark.parametrize(
    "head", [b"P6 4 -0 255\n", b"P6 [[[[[[[[[[[[ 4 255\n", b"II*\0\x08\0\0\0\x01\0\0\x01", b"\xff\xd8\xff\xe1\0\x20Exif\0\0II*\0"]
)
def test_size_of_a_damaged_picture_is_unknown(head, tmp_path):
    (tmp_path / "a.png").write_bytes(head)
    assert camera_check.picture_size([tmp_path / "a.png"]) is None


CAMERA = {"width": 8, "height": 6, "fx": 6.0, "fy": 6.0, "cx": 3.5, "cy": 2.5}


@pytest.mark.parametrize(
    "change", [{"fx": 1e308}, {"fy": 1e-320}, {"fy": 1e300}, {"fx": "x" * 9000}, {"cx": "a\nb\0"}, {"fx": [[]]}]
)
def test_camera_of_impossible_numbers(change, tmp_path):
    path, picture = tmp_path / "intrinsics.json", tmp_path / "a.png"
    picture.write_bytes(cv2.imencode(".png", PICTURE)[1].tobytes())
    path.write_text(json.dumps(CAMERA | change))
    with pytest.raises(ConfigError) as raised:
        folder.read_camera(path, [picture], (6, 8))
    message = str(raised.value)
    assert "intrinsics.json" in message and message.isprintable() and len(message) <= LONGEST_MESSAGE


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\ufeff{", "9" * 5000])
def test_json_that_python_cannot_parse(text):
    with pytest.raises(ValueError, match=r"nested too deeply|BOM|4300 digits"):
        parse_json(text)
    with pytest.raises(ValueError, match="it is not text"):
        parse_json(b"{\xff\xfe}")
    for half in (b'{"a": "\xed\xa0\x80"}', b'{"\\uD800": 1}'):
        with pytest.raises(ValueError, match="it is not text"):
            parse_json(half)
    assert parse_json(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    "rows", ["", "# 1\n", "1 0 0 0 0 1 0 0 0 0 1 1e300\n", "1 0 0 0 0 1 0 0 0 0 -1 0\n", "0 " * 12, "1 " * 11, "x"]
)
def test_lines_that_are_no_poses(rows, tmp_path):
    path = tmp_path / "poses.txt"
    path.write_text(rows)
    with pytest.raises(ConfigError, match=r"poses\.txt"):
        true_poses.read_poses(path)


@pytest.mark.parametrize("row", ["49 8 116", "90 8 116 0 0 0", "49 8 116 0 nan 0", "49 8 1e308 0 0 0", ""])
def test_oxts_without_a_position(row, tmp_path):
    path = tmp_path / "0000000000.txt"
    path.write_text(row)
    with pytest.raises(ConfigError, match=r"0000000000\.txt"):
        true_poses.read_position(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("R_rect_00", "1 0 0 0 1 0 0 0 2"),
        ("R_rect_00", "1 0 0 0 1 0 0 0 -1"),
        ("R_rect_00", "1e308 0 0 0 1 0 0 0 1"),
        ("P_rect_02", "7 0 3 0 0 7 2 0 0 0 0 0"),
        ("P_rect_02", "7 0 3 1e300 0 7 2 0 0 0 1 0"),
        ("P_rect_02", "7 1 3 0 0 7 2 0 0 0 1 0"),
        ("P_rect_02", "1e-320 0 3 0 0 7 2 0 0 0 1 0"),
    ],
)
def test_calibration_that_is_no_camera(key, value, tmp_path):
    path = tmp_path / "calib.txt"
    path.write_text(f"{key}: {value}\n")
    with pytest.raises(ConfigError, match=rf"calib\.txt: {key}"):
        calibration.read_calibration(path, **{key: len(value.split())})


@pytest.mark.parametrize("line", ["1e400", "nan", "9" * 5000, "2011-09-26 13:02", "2011-09-26 13:02:1e99", ":", "0-0-0 1:1:1"])
def test_times_that_are_none(line, tmp_path, caplog):
    path = tmp_path / "timestamps.txt"
    path.write_text(f"0\n{line}\n")
    assert timestamps.seconds_of(path, ["0", "1"]) == [0, timestamps.Decimal("0.1")]
    assert "10 frames per second are assumed" in caplog.text


@pytest.mark.parametrize("identity", ["NaN", "1e400", "99999999999999999999999", "null", '"x"', "[]"])
def test_segments_without_numbers(identity, tmp_path):
    path = tmp_path / masks.SEGMENTS
    segment = f'{{"category_id": 1, "id": {identity}}}'
    path.write_text(f'{{"annotations": [{{"file_name": "a.png", "segments_info": [{segment}]}}]}}')
    with pytest.raises(ConfigError, match=r"panoptic\.json is not in COCO's panoptic format"):
        masks.object_segments(path, 0)


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe\n",
        b"[]\n",
        b'{"step": "3", "kind": "train"}\n',
        b"[" * 9000,
        b'{"step": 3}\n',
        b'{"step": 3, "kind": "val", "x": [1]}\n',
        b'{"step": 3, "kind": "alarm", "alarm": "a", "state": "raised", "text": "b"}\n',
    ],
)
def test_damaged_record_of_a_log_is_left_out(damage, tmp_path):
    whole = b'{"step": 1, "kind": "train", "total": "nan"}\n'
    (tmp_path / "metrics.jsonl").write_bytes(whole + damage.rstrip(b"\n") + b"\n" + whole)
    assert read_history(tmp_path) == 2 * [{"step": 1, "kind": "train", "total": "nan"}]


@pytest.mark.parametrize(
    "change", [{"inverse_depth": np.ones(3, np.float32)}, {"pose": np.eye(4) * np.nan}, {"network": np.array("x")}]
)
def test_prediction_of_an_earlier_run_is_checked(change, tmp_path):
    whole = {"inverse_depth": np.ones((2, 3), np.float32), "network": np.array("student"), "pose": np.eye(4, dtype=np.float32)}
    np.savez(tmp_path / "a.npz", **whole)
    assert Records(tmp_path, ["a"], 1).read(0).network == "student"
    np.savez(tmp_path / "a.npz", **whole | change)
    with pytest.raises(ConfigError, match=r"a\.npz is damaged"):
        Records(tmp_path, ["a"], 1).read(0)


def test_damaged_file_in_an_archive_with_an_odd_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "left.zip", "w") as archive:
        archive.writestr("train/ulm/a\x03.png", b"content")
    whole = (tmp_path / "left.zip").read_bytes()
    (tmp_path / "left.zip").write_bytes(whole.replace(b"content", b"damaged"))
    tree = files.Tree(tmp_path, [tmp_path / "left.zip"])
    with pytest.raises(OSError, match="cannot be read from its archive") as error:
        tree.read("train/ulm/a\x03.png")
    tree.close()
    assert str(error.value).isprintable()
