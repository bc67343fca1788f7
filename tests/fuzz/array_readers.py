"""Readers of arrays and pictures: scans, depth, masks, images, ``.npy``, ``.npz`` and ``.safetensors``."""

import functools
import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import mutations
import numpy as np
from PIL import Image
from reader import Reader, finite
from safetensors.numpy import save

from dd_jax.checkpoints import torch_files
from dd_jax.config import DataConfig
from dd_jax.data import camera_check, frames, ground_truth_file
from dd_jax.data.cityscapes import files as cityscapes
from dd_jax.data.cityscapes import ground_truth
from dd_jax.data.kitti import raw
from dd_jax.evaluation import external_predictions
from dd_jax.inference import inputs, predict

SIZE = (24, 40)

RNG = np.random.default_rng(0)
PICTURE = cv2.resize(RNG.integers(0, 256, (6, 10, 3), np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
DEPTH = RNG.integers(1, 2**16, SIZE).astype(np.uint16)
MASK = (RNG.random(SIZE) < 0.3).astype(np.uint8)


def encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, image, options)[1].tobytes()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def npy(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return file.getvalue()


PNG = (encoded(".png", PICTURE), encoded(".png", PICTURE[..., 0]), encoded(".png", MASK * 255))
JPEG = (
    encoded(".jpg", PICTURE),
    encoded(".jpg", PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    saved(Image.fromarray(PICTURE), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
)
OTHER = tuple(saved(Image.fromarray(PICTURE), kind) for kind in ("BMP", "TIFF", "WEBP", "GIF", "PPM"))
LABELS = (encoded(".png", RNG.integers(0, 34, SIZE).astype(np.uint8)), saved(Image.fromarray(MASK).convert("P"), "PNG"))
SAFE = save({"encoder.conv1.weight": RNG.normal(size=(4, 3, 2, 2)).astype(np.float32), "fc.bias": np.zeros(3, np.float16)})


def given(*contents: bytes) -> Callable[[Path], list[bytes]]:
    return lambda path: list(contents)


def is_image(image: np.ndarray) -> None:
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


def is_mask(mask: np.ndarray) -> None:
    assert mask.dtype == bool and mask.ndim == 2 and mask.size


def is_depth(depth: np.ndarray | None) -> None:
    if depth is not None:
        finite(depth)
        assert depth.ndim == 2


def is_scan(points: np.ndarray) -> None:
    finite(points)
    assert points.ndim == 2 and points.shape[1] == 4 and len(points)


def is_size(found: tuple | None) -> None:
    assert found is None or min(found[1]) >= 1


def is_state(state: dict[str, np.ndarray]) -> None:
    assert all(isinstance(name, str) and isinstance(array, np.ndarray) for name, array in state.items())


def is_prediction(prediction: predict.Prediction) -> None:
    finite(prediction.inverse_depth)
    assert prediction.inverse_depth.ndim == 2 and isinstance(prediction.network, str)


def decoded(file: str, decode: Callable, check: Callable, *seeds: bytes) -> Reader:
    """:mod:`dd_jax.data.frames` raises its own error, which its callers convert."""
    errors, is_array = (frames.UnreadableFrame,), file.endswith(".npy")
    return Reader(file, given(*seeds), decode, check, errors, mutations.png, dear=not is_array)


def from_archive(names: list[str], path: Path) -> np.ndarray:
    config = DataConfig(root="unused", ground_truth_file=str(path))
    return ground_truth_file.of_split(config, "test", names, "")(0)


def from_stack(path: Path) -> np.ndarray:
    return external_predictions.open_predictions(path, ["a", "b"], "depth")(1)


def from_folder(path: Path) -> np.ndarray:
    return external_predictions.open_predictions(path.parent, ["a b"], "disparity")(0)


def record(path: Path) -> predict.Prediction | None:
    return predict.Records(path.parent, [path.stem], 1).read(0)


def archives(path: Path) -> dict[str, bytes]:
    tree = cityscapes.Tree(path.parent, [path])
    try:
        return {
            name: tree.read(f"leftImg8bit_sequence/train/ulm/{name}") for name in tree.names("leftImg8bit_sequence/train/ulm")
        }
    finally:
        tree.close()


def member(rng: random.Random, data: bytes) -> bytes:
    """In half of the cases, an archive with a damaged array instead of a damaged archive."""
    if rng.random() < 0.5:
        return data
    damaged = mutations.variant(rng, [npy(np.ones(SIZE, np.float32)), npy(np.array("student"))], mutations.unrepaired)
    names = ("depth_000000.npy", "names.npy", "data.npy", "inverse_depth.npy", "pose.npy", "network.npy")
    whole = {"names.npy": npy(np.array(["a"])), "inverse_depth.npy": npy(np.ones(SIZE)), "network.npy": npy(np.array("x"))}
    return zipped({**whole, rng.choice(names): damaged}, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


MAP, STACK = npy(DEPTH / np.float32(256)), npy(np.ones((2, 1, *SIZE), np.float32))
RECORD = io.BytesIO()
np.savez(RECORD, inverse_depth=np.ones(SIZE, np.float32), network=np.array("student"), pose=np.eye(4, dtype=np.float32))
NAMED = {"names.npy": npy(np.array(["a", "b"])), "depth_000001.npy": MAP}

ARRAYS = {
    "velodyne scan": Reader(
        "0000000000.bin", given(RNG.normal(size=(9, 4)).astype("<f4").tobytes(), bytes(16)), raw.read_scan, is_scan
    ),
    "annotated depth": Reader(
        "0000000000.png", given(encoded(".png", DEPTH)), raw.read_annotated, is_depth, repair=mutations.png, dear=True
    ),
    "depth of a picture": decoded("depth.png", frames.decode_depth, lambda depth: finite(depth), encoded(".png", DEPTH)),
    "image, PNG": decoded("image.png", frames.decode_image, is_image, *PNG, saved(Image.fromarray(PICTURE).quantize(8), "PNG")),
    "image, JPEG": decoded("image.jpg", frames.decode_image, is_image, *JPEG),
    "image, whole": decoded("image.jpg", frames.decode_whole_image, is_image, *JPEG, *PNG),
    "image, other formats": decoded("image.png", frames.decode_image, is_image, *OTHER),
    "size of an image": Reader(
        "image.png",
        given(*PNG, *JPEG, *OTHER),
        lambda path: camera_check.picture_size([path]),
        is_size,
        repair=mutations.png,
        dear=True,
    ),
    "mask, picture": decoded("mask.png", frames.decode_mask, is_mask, *PNG, encoded(".png", DEPTH)),
    "mask, array": decoded("mask.npy", frames.decode_mask, is_mask, npy(MASK), npy(MASK > 0), npy(DEPTH / 7.0)),
    "mask, Cityscapes": decoded("mask.png", functools.partial(frames.decode_mask, mask_format="cityscapes"), is_mask, *LABELS),
    "mask of a frame": Reader(
        "mask.npy", given(npy(MASK)), lambda path: frames.object_mask(path.parent, "mask.png", SIZE), is_mask
    ),
    "prior depth, picture": decoded("prior.png", frames.decode_prior, finite, encoded(".png", DEPTH), PNG[1]),
    "prior depth, array": decoded("prior.npy", frames.decode_prior, finite, npy(DEPTH), npy(1 / DEPTH)),
    "ground truth of a frame": Reader(
        "frame.npy", given(MAP), lambda path: inputs._truth(path.parent, "frame", SIZE), lambda found: None
    ),
    "ground truth, archive": Reader(
        "depths.npz",
        given(zipped(NAMED), zipped({"data.npy": npy(np.ones((2, *SIZE), np.float32))})),
        functools.partial(from_archive, ["b", "a"]),
        is_depth,
        repair=member,
    ),
    "ground truth of Cityscapes": Reader("000_depth.npy", given(MAP, npy(DEPTH / 3.0)), ground_truth._read_depth, is_depth),
    "disparity of Cityscapes": Reader(
        "disparity.png",
        given(encoded(".png", DEPTH)),
        lambda path: ground_truth._depth_from_disparity(path, 400.0),
        is_depth,
        repair=mutations.png,
        dear=True,
    ),
    "predictions, array": Reader("all.npy", given(STACK), from_stack, finite),
    "predictions, map": Reader("a_b.npy", given(MAP, npy(DEPTH)), from_folder, finite),
    "predictions, picture": Reader(
        "a_b.png", given(encoded(".png", DEPTH)), from_folder, finite, repair=mutations.png, dear=True
    ),
    "prediction of an earlier run": Reader("000000.npz", given(RECORD.getvalue()), record, is_prediction, repair=member),
    "archive of Cityscapes": Reader(
        "left.zip",
        given(zipped({"leftImg8bit_sequence/train/ulm/a.png": PNG[0]}), zipped({"leftImg8bit_sequence/train/ulm/b": b"b" * 99})),
        archives,
        lambda found: None,
        (*Reader.errors, OSError),
        in_messages="left",
    ),
    "weights, safetensors": Reader("weights.safetensors", given(SAFE), torch_files.read, is_state, repair=mutations.safetensors),
}
