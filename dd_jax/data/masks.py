"""Which pixels of a segmentation are potentially dynamic objects: the classes, and how files say them."""

import functools
import json
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from dd_jax.config import ConfigError

CLASSES = ("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle")
"""What may move by itself, by the names of Cityscapes; those of COCO are among them."""

LABEL_IDS = (24, 33)
"""First and last Cityscapes label id of :data:`CLASSES`."""

TRAIN_IDS = (11, 18)
"""Likewise of the 19 classes that Cityscapes trains with (caravans and trailers are not among them)."""

COCO_IDS = (1, 2, 3, 4, 6, 7, 8)
"""``category_id`` in COCO: person, bicycle, car, motorcycle, bus, train, truck."""

SEGMENTS = "panoptic.json"
"""Lies beside the PNGs of the panoptic format."""


def is_object(values: Shaped[np.ndarray, "h w"], mask_format: str) -> Bool[np.ndarray, "h w"]:
    """Potentially dynamic objects of a mask with one value a pixel.

    Args:
      mask_format: "binary" (nonzero), "cityscapes" (label ids; of ``*_instanceIds.png``, whose objects say
        ``1000 * label + number``, too) or "cityscapes_train" (train ids).
    """
    if mask_format == "binary":
        return np.abs(values) > 0  # not a number is no object
    first, last = TRAIN_IDS
    if mask_format == "cityscapes":
        first, last = LABEL_IDS
        if values.dtype.itemsize > 1:
            values = np.where(values >= 1000, values // 1000, values)
    return (values >= first) & (values <= last)


def is_object_segment(picture: Shaped[np.ndarray, "h w 3"], path: Path) -> Bool[np.ndarray, "h w"]:
    """Potentially dynamic objects of COCO's panoptic format: RGB says a segment, ``R + 256 G + 256^2 B``.

    What the segments of the picture ``path`` are stands in :data:`SEGMENTS` beside it.

    Raises:
      ConfigError: no such file, or not in COCO's form.
      KeyError: it knows nothing of this picture.
    """
    segments = path.with_name(SEGMENTS)
    try:
        stamp = segments.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(
            f"{segments} does not exist: --config.data.mask_format=coco_panoptic needs COCO's JSON beside the PNGs by this name"
        ) from error
    objects = object_segments(segments, stamp)[path.name]
    return np.isin(picture.astype(np.int64) @ np.array([1, 256, 256**2]), np.fromiter(objects, np.int64))


@functools.lru_cache(maxsize=8)
def object_segments(path: Path, stamp: int) -> dict[str, frozenset[int]]:
    """Name of a picture -> ids of its segments that are potentially dynamic objects.

    Classes are recognised by name where the file has ``categories`` (that of Cityscapes has), by COCO's ids elsewhere.
    ``stamp`` tells a changed file from the one read before.

    Raises:
      ConfigError: not JSON, or not in COCO's form.
    """
    try:
        content = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in content.get("categories", ())}
        objects = {number for number, name in names.items() if name in CLASSES} if names else set(COCO_IDS)
        return {
            annotation["file_name"]: frozenset(
                int(segment["id"]) for segment in annotation["segments_info"] if segment["category_id"] in objects
            )
            for annotation in content["annotations"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not in COCO's panoptic form, annotations with file_name and segments_info (id, category_id): {error!r}"
        ) from error
