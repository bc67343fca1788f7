"""Readers of text: calibrations, lists, tables, and JSON documents of data sets."""

import itertools
import json
from decimal import Decimal
from pathlib import Path

import cityscapes_tree
import cv2
import numpy as np
from reader import Reader, finite, is_camera

from dd_jax.data import folder, masks, splits
from dd_jax.data.cityscapes import files as cityscapes
from dd_jax.data.kitti import calibration, odometry, raw, timestamps
from dd_jax.data.synthetic.make import _describe, _read_info
from dd_jax.data.tfds import store
from dd_jax.diagnosis import true_poses
from dd_jax.inference import inputs
from dd_jax.prepare import runner, undistort, video

SIZE = (32, 104)
"""Height and width of the pictures and of the target."""

CAMERAS = b"""calib_time: 09-Jan-2012 13:57:47
S_02: 1.392000e+02 5.120000e+01
R_rect_00: 9.999239e-01 9.837760e-03 -7.445048e-03 -9.869795e-03 9.999421e-01 -4.278459e-03 7.402527e-03 4.351614e-03 9.999631e-01
S_rect_02: 1.040000e+02 3.200000e+01
P_rect_02: 7.215377e+01 0 5.209559e+01 4.485728e+00 0 7.215377e+01 1.528540e+01 2.163791e-01 0 0 1 2.745884e-03
"""
SCANNER = b"""calib_time: 15-Mar-2012 11:37:16
R: 7.533745e-03 -9.999714e-01 -6.166020e-04 1.480249e-02 7.280733e-04 -9.998902e-01 9.998621e-01 7.523790e-03 1.480755e-02
T: -4.069766e-03 -7.631618e-02 -2.717806e-01
"""
POINTS = np.column_stack([np.linspace(-3, 60, 50), np.linspace(-9, 9, 50), np.linspace(-2, 1, 50), np.ones(50)])

POSES = b"1 0 0 0 0 1 0 0 0 0 1 0\n" + b"0.9998 0.01 0.002 1.5e-1 -0.01 0.9999 0.001 -2e-2 -0.002 -0.001 1 1.05\n" * 3
OXTS = b"49.015 8.434 116.43 0.035 0.0009 -2.62 -11.6 -6.48 13.17 0.02 13.17 " + b"0.1 " * 19 + b"\n"


def _picture(path: Path) -> None:
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))


def _beside(*contents: bytes):
    """Seeds of a file that lies beside a picture."""

    def seeds(path: Path) -> list[bytes]:
        _picture(path.parent / "picture.png")
        return list(contents)

    return seeds


def _pictures(path: Path) -> list[Path]:
    return [path.parent / "picture.png"]


def _project(path: Path, which: str) -> np.ndarray:
    """The depth map of a fixed scan by ``path`` and the other calibration file."""
    truth = raw._GroundTruth(path.parents[1], [("date/drive", 0, 2)], lambda index: None, "binary", [])
    other = {"calib_cam_to_cam.txt": CAMERAS, "calib_velo_to_cam.txt": SCANNER}
    for name, content in other.items():
        if name != which:
            (path.parent / name).write_bytes(content)
    return raw.depth_map(*truth.texts("date", 2), POINTS.astype(np.float32))


def _is_depth(depth: np.ndarray) -> None:
    finite(depth)
    assert depth.ndim == 2 and (depth >= 0).all()


def _entries(found: list) -> None:
    assert found and all(".." not in entry[0].split("/") and not entry[0].startswith("/") for entry in found)
    assert all(type(entry[-2]) in (int, str) and int(entry[-1]) >= 0 for entry in found)


CLIPS = {"": ["a.png", "b.png"], "clip": ["0.png", "1.png", "2.jpg"]}


def _places(found: list) -> None:
    assert found and all(0 <= place < len(CLIPS[clip]) for clip, place in found)


def _times(found: list | None) -> None:
    finite(found)
    assert len(found) == 4 and all(isinstance(time, Decimal) for time in found)
    assert all(later > earlier for earlier, later in itertools.pairwise(found))


def _poses(found: np.ndarray) -> None:
    finite(found)
    assert found.shape[1:] == (4, 4) and len(found)


def _motion(path: Path) -> np.ndarray:
    return true_poses.T_world_from_imu(true_poses.read_position(path)[None])


def _from_imu(path: Path) -> np.ndarray:
    """By ``path`` as calibration of the cameras, and of both others."""
    scanner = path.with_name("calib_velo_to_cam.txt")
    scanner.write_bytes(SCANNER)
    return true_poses.T_camera_from_imu(path, scanner, scanner, 2)[None]


def _speed(found: float) -> None:
    finite(found)


def _city(path: Path) -> np.ndarray:
    camera = cityscapes.Cameras(cityscapes.Tree(path.parents[3])).of("train", "ulm", "000064", 19)
    return camera.matrix(SIZE)


def _segments(found: dict) -> None:
    assert all(isinstance(name, str) for name in found)
    for ids in found.values():
        np.fromiter(ids, np.int64)


PANOPTIC = {
    "categories": [{"id": 1, "name": "car"}, {"id": 7, "name": "road"}],
    "annotations": [{"file_name": "a.png", "segments_info": [{"id": 5, "category_id": 1}, {"id": 9, "category_id": 7}]}],
}
STORE = {
    "fingerprint": "0123456789abcdef", "splits": {"train": 3}, "unreadable": [1], "misfits": [], "shards": {"frames/x": 7},
    "settings": {
        "size": [64, 96], "reference": [64, 96], "depth": ["test"], "source": "kitti", "resize": "area", "intrinsics": "calib",
        "masks": "files", "priors": "none",
    },
}  # fmt: skip
JOURNAL = b"frame,outcome,motion,parallax,sharpness,seconds,brightest\n0,kept,nan,nan,12.5,0,255\n1,static,0.0001,0,11,0.1,250\n"
CLIP = {
    "video": "a.mp4", "bytes": 100, "every": 1, "start": 0.0, "end": None, "suffix": "jpg",
    "found": {"rate": 25.0, "width": 64, "height": 32, "camera": "", "reported": "", "missing": 0},
}  # fmt: skip
SETTINGS = {name: value for name, value in CLIP.items() if name != "found"}


def _journal(rows: list) -> None:
    assert all(isinstance(row.frame, int) and row.frame >= 0 and isinstance(row.outcome, str) for row in rows)


def _clip(known: dict | None) -> None:
    assert known is None or {name: type(value) for name, value in known["found"].items()} == video.FOUND


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _note(found: dict) -> None:
    assert isinstance(found["fingerprint"], str) and all(isinstance(size, int) for size in found["shards"].values())


CAMERA = _json({"width": 104, "height": 32, "fx": 83.1, "fy": 83.1, "cx": 51.5, "cy": 15.5})

TEXT = {
    "kitti calibration": Reader(
        "calib_cam_to_cam.txt",
        _beside(CAMERAS),
        lambda path: calibration.drive_camera(path, 2, _pictures(path), SIZE),
        is_camera,
    ),
    "kitti calibration of the cameras, for a scan": Reader(
        "date/calib_cam_to_cam.txt", lambda path: [CAMERAS], lambda path: _project(path, path.name), _is_depth
    ),
    "kitti calibration of the scanner": Reader(
        "date/calib_velo_to_cam.txt", lambda path: [SCANNER], lambda path: _project(path, path.name), _is_depth
    ),
    "kitti odometry calibration": Reader(
        "calib.txt",
        _beside(b"P0: 72 0 52 0 0 72 16 0 0 0 1 0\nP2: 7.188560e+01 0 5.2e+01 4.5 0 7.18856e+01 1.6e+01 -0.1 0 0 1 0.004\n"),
        lambda path: odometry.sequence_camera(path, 2, _pictures(path), SIZE),
        is_camera,
    ),
    "kitti list": Reader(
        "train_files.txt",
        lambda path: [b"2011_09_26/2011_09_26_drive_0001_sync 7 l\n2011_09_26/x 0000000008 r\n", b"a 1 2\r\nb 2 3\r\n"],
        splits.read_kitti,
        _entries,
    ),
    "cityscapes list": Reader(
        "train_files.txt",
        lambda path: [b"ulm ulm_000064_000019\naachen aachen_000000_000003\n"],
        splits.read_cityscapes,
        _entries,
    ),
    "folder list": Reader(
        "val_files.txt", lambda path: [b"a\nclip 0\nclip 1.png\n"], lambda path: folder._from_file(path, CLIPS), _places
    ),
    "kitti time stamps": Reader(
        "timestamps.txt",
        lambda path: [
            b"".join(b"2011-09-26 13:02:%02d.964389445\n" % second for second in range(20, 25)),
            b"0.000000e+00\n1.03e-01\n2.07e-01\n3.1e-01\n",
        ],
        lambda path: timestamps.seconds_of(path, ["0", "1", "2", "3"]),
        _times,
    ),
    "kitti poses": Reader("poses.txt", lambda path: [POSES], true_poses.read_poses, _poses),
    "kitti calibration of the cameras, for poses": Reader("calib_cam_to_cam.txt", lambda path: [CAMERAS], _from_imu, _poses),
    "kitti oxts, motion": Reader("0000000000.txt", lambda path: [OXTS], _motion, _poses),
    "kitti oxts, speed": Reader("0000000000.txt", lambda path: [OXTS], inputs._speed, _speed),
    "cityscapes triplet camera": Reader(
        "ulm_cam.txt",
        lambda path: [b"1131.26,0.0,548.49,0.0,1132.65,256.57,0.0,0.0,1.0"],
        lambda path: cityscapes.read_camera_text(path, SIZE, SIZE),
        is_camera,
    ),
    "cityscapes camera": Reader(
        "camera/train/ulm/ulm_000064_000019_camera.json", lambda path: [_json(cityscapes_tree.CAMERA)], _city, is_camera
    ),
    "cityscapes note of triplets": Reader(
        cityscapes.NOTE,
        lambda path: [_json({"height": 192, "width": 512, "unfinished": ["ulm"]})],
        lambda path: cityscapes.read_note(path.parent),
        lambda found: None,
    ),
    "camera of a folder": Reader(
        folder.CAMERA, _beside(CAMERA), lambda path: folder.read_camera(path, _pictures(path), SIZE), is_camera
    ),
    "coco segments": Reader(
        masks.SEGMENTS,
        lambda path: [_json(PANOPTIC), _json({"annotations": PANOPTIC["annotations"]})],
        lambda path: masks.object_segments.__wrapped__(path, 0),
        _segments,
    ),
    "note of a store": Reader(store.NOTE, lambda path: [_json(STORE)], lambda path: store.read_note(path.parent), _note),
    "note of rendered drives": Reader(
        "synthetic.json",
        lambda path: [_json({"preset": "tiny", "seed": 0, "height": 32, "width": 64, "version": 2, "complete": True})],
        lambda path: _read_info(path.parent),
        lambda found: _describe(found),
    ),
    "journal of an extraction": Reader(
        video.JOURNAL, lambda path: [JOURNAL], lambda path: video.read_journal(path.parent), _journal
    ),
    "settings of an extraction": Reader(
        f"clip/{video.SETTINGS}",
        lambda path: [_json(CLIP)],
        lambda path: video._known(path.parent, SETTINGS),
        _clip,
        in_messages="clip",
    ),
    "note of prepared masks": Reader(
        undistort.NOTE,
        lambda path: [_json({"model": "x", "threshold": 0.5})],
        lambda path: runner.note_origin(path, {"model": "x", "threshold": 0.5}),
        lambda found: None,
    ),
}
