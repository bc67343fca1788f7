"""Potentially dynamic objects in segmentation files: classes and file formats."""

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from dd_jax.config import ConfigError
from dd_jax.runtime.files import read_json

CLASSES = ("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle")
"""Potentially dynamic classes by their Cityscapes names, which include COCO's."""

LABEL_IDS = (24, 33)
"""First and last Cityscapes label id of :data:`CLASSES`."""

TRAIN_IDS = (11, 18)
"""First and last Cityscapes train id of :data:`CLASSES` (caravan and trailer have none)."""

COCO_IDS = (1, 2, 3, 4, 6, 7, 8)
"""``category_id`` in COCO: person, bicycle, car, motorcycle, bus, train, truck."""

SEGMENTS = "panoptic.json"
"""COCO's JSON file in the folder of the panoptic PNGs."""


def is_object(values: Shaped[np.ndarray, "h w"], mask_format: str) -> Bool[np.ndarray, "h w"]:
    """Potentially dynamic objects of a mask with one value per pixel.

    Args:
      mask_format: "binary" (nonzero), "cityscapes" (label ids, or ``*_instanceIds.png`` with ``1000 * label +
        number``) or "cityscapes_train" (train ids).
    """
    if mask_format == "binary":
        return np.abs(values) > 0  # NaN is not an object
    first, last = TRAIN_IDS
    if mask_format == "cityscapes":
        first, last = LABEL_IDS
        if values.dtype.itemsize > 1:
            values = np.where(values >= 1000, values // 1000, values)
    return (values >= first) & (values <= last)


def is_object_segment(image: Shaped[np.ndarray, "h w 3"], path: Path) -> Bool[np.ndarray, "h w"]:
    """Potentially dynamic objects of COCO's panoptic format: RGB encodes the segment id ``R + 256 G + 256^2 B``.

    :data:`SEGMENTS` beside the image ``path`` lists the classes of its segments.

    Raises:
      ConfigError: that file is absent or not in COCO's format.
      KeyError: it does not list this image.
    """
    segments = path.with_name(SEGMENTS)
    try:
        stamp = segments.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(
            f"{segments} does not exist: --config.data.mask_format=coco_panoptic needs COCO's JSON beside the PNGs by this name"
        ) from error
    objects = object_segments(segments, stamp)[path.name]
    return np.isin(image.astype(np.int64) @ np.array([1, 256, 256**2]), np.fromiter(objects, np.int64))


@functools.lru_cache(maxsize=8)
def object_segments(path: Path, stamp: int) -> dict[str, frozenset[int]]:
    """Image file name -> ids of its segments that are potentially dynamic objects.

    Classes are matched by name if the file has ``categories`` (Cityscapes' has), otherwise by COCO's ids.
    ``stamp`` (modification time) invalidates the cached result of a changed file.

    Raises:
      ConfigError: not JSON, or not in COCO's format.
    """
    try:
        content = read_json(path)
        names = {category["id"]: category["name"] for category in content.get("categories", ())}
        objects = {number for number, name in names.items() if name in CLASSES} if names else set(COCO_IDS)
        return {
            str(annotation["file_name"]): frozenset(
                np.int64(segment["id"]).item() for segment in annotation["segments_info"] if segment["category_id"] in objects
            )
            for annotation in content["annotations"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"{path} is not in COCO's panoptic format, annotations with file_name and segments_info (id, category_id): {error!r}"
        ) from error
