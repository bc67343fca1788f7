"""Cityscapes' original tree at an eighth of its size, made of random images."""

import json
from pathlib import Path

import cv2
import numpy as np

from dd_jax.config import DataConfig

CAMERA = {
    "extrinsic": {"baseline": 0.209313, "pitch": 0.038, "roll": 0.0, "x": 1.7, "y": 0.1, "yaw": -0.0195, "z": 1.22},
    "intrinsic": {"fx": 2262.52, "fy": 2265.3017905988554, "u0": 1096.98, "v0": 513.137},
}


class CityscapesTree:
    """``config`` reads the kept rows at their own size, so frames come back unchanged from PNG."""

    def __init__(self, root: Path, size=(128, 256)):
        self.root, self.size = root, size
        self.config = DataConfig(source="cityscapes", root=str(root), height=size[0] * 3 // 4, width=size[1])

    def picture(self, number, city="ulm", sequence="000064"):
        """The full image of a frame; smooth, so that it survives JPEG."""
        rng = np.random.default_rng([number, int(sequence), *city.encode()])
        small = rng.integers(0, 256, (self.size[0] // 16, self.size[1] // 16, 3), dtype=np.uint8)
        return cv2.resize(small, self.size[::-1], interpolation=cv2.INTER_CUBIC)

    def path(self, kind, number, city="ulm", sequence="000064", home="train"):
        names = {
            "leftImg8bit_sequence": "leftImg8bit.png",
            "leftImg8bit": "leftImg8bit.png",
            "camera": "camera.json",
            "camera_trainvaltest/camera": "camera.json",
            "disparity": "disparity.png",
            "mask_sequence": "mask.png",
            "prior_sequence": "prior.png",
        }
        path = self.root / kind / home / city / f"{city}_{sequence}_{number:06d}_{names[kind]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def frames(self, numbers, kind="leftImg8bit_sequence", **where):
        for number in numbers:
            city, sequence = where.get("city", "ulm"), where.get("sequence", "000064")
            path = self.path(kind, number, **where)
            assert cv2.imwrite(str(path), self.picture(number, city, sequence)[..., ::-1])

    def camera(self, number, values=None, kind="camera", **where):
        self.path(kind, number, **where).write_text(json.dumps(values or CAMERA))

    def array(self, kind, number, values, **where):
        assert cv2.imwrite(str(self.path(kind, number, **where)), values)

    def split(self, name, entries):
        (self.root / "splits").mkdir(exist_ok=True)
        lines = [f"{city} {city}_{sequence}_{number:06d}\n" for city, sequence, number in entries]
        (self.root / f"splits/{name}_files.txt").write_text("".join(lines))

    def make_training(self, rng):
        """A sequence with training and validation samples, and disparity for both."""
        self.frames(range(8)), self.camera(5)
        self.split("train", [("ulm", "000064", number) for number in (2, 3, 4, 5)])
        self.split("val", [("ulm", "000064", 3)])
        for number in (2, 3, 4, 5):
            self.array("disparity", number, rng.integers(2000, 2**15, self.size).astype(np.uint16))

    def kept(self, number, **where):
        """The rows of a frame that training uses."""
        return self.picture(number, **where)[: self.size[0] * 3 // 4]
