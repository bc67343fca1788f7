"""Loader throughput from cached frames, beside a PyTorch DataLoader that reads the same drives as the field's code does.

Both yield triplets of one size in batches, with so many workers each, in one run and in alternation. Ours is a copy from the
frame cache; flip and jitter belong to the training step, so ours is measured a second time with them, on this machine's
device. The other decodes PNG or JPEG, flips, makes a LANCZOS pyramid of four sizes and jitters, all on the CPU.
"""

import importlib.util
import itertools
import json
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from dd_jax.config import Config, DataConfig
from dd_jax.data import synthetic
from dd_jax.data.frames import MISSING
from dd_jax.data.kitti import raw
from dd_jax.data.loader import open_split, train_batches
from dd_jax.method.augment import augment

SCALES = 4
JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}


def prepare(root: str, batch_size: int, workers: int = 2) -> Config:
    """The experiment: 192x640, no masks, drives in ``root`` at KITTI's own size; they are rendered there first if absent.

    Raises:
      ConfigError: ``root`` holds other data.
    """
    synthetic.make(root, "tiny", height=375, width=1242)
    data = DataConfig(root=root, resize="lanczos", masks="none", batch_size=batch_size, threads=workers)
    return Config(name="loader", data=data)


def benchmark(config: Config, batches: int, repeats: int) -> dict[str, Any]:
    """Measures, prints, and returns what the last line says: frames per second, medians over ``repeats`` rounds.

    Without torch and torchvision ours is measured alone.

    Raises:
      ConfigError: data that cannot be read.
    """
    data, source = config.data, open_split(config.data, "train")
    on_device = jax.jit(partial(augment, config=config.augment, train=True))
    loaders: dict[str, Callable[[], Iterable]] = {
        "ours": lambda: itertools.islice(train_batches(source, config), batches),
        "ours_augmented": lambda: (jax.block_until_ready(on_device(batch)) for batch in loaders["ours"]()),
    }
    if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
        reference = torch_loader(config, batches)
        loaders["torch"] = lambda: reference
    rounds: dict[str, list[float]] = {name: [] for name in loaders}
    for repeat in range(repeats + 1):
        for name, make in loaders.items():
            start = time.perf_counter()
            count = sum(1 for _ in make())
            if repeat > 0:  # the first round starts workers and compiles
                rounds[name].append(3 * data.batch_size * count / (time.perf_counter() - start))
    speeds = {name: float(np.median(values)) for name, values in rounds.items()}
    ratio = speeds["ours"] / speeds["torch"] if "torch" in speeds else None
    print(f"frames/s at {data.height}x{data.width}, batch {data.batch_size}, {data.threads} workers, {len(source)} triplets")
    for name, speed in speeds.items():
        print(f"{name:14} {speed:9.1f}   rounds {', '.join(f'{value:.1f}' for value in rounds[name])}")
    print("torch and torchvision are not installed: ours alone" if ratio is None else f"ratio {ratio:.2f}")
    result = {
        "device": jax.local_devices()[0].device_kind,
        "size": [data.height, data.width],
        "batch_size": data.batch_size,
        "workers": data.threads,
        "batches": batches,
        "repeats": repeats,
        "ours_frames_per_second": speeds["ours"],
        "ours_augmented_frames_per_second": speeds["ours_augmented"],
        "torch_frames_per_second": speeds.get("torch"),
        "ratio": ratio,
    }
    print(json.dumps(result))
    return result


class ReferenceDataset:
    """The triplets of a split as Monodepth2 and ManyDepth make them for training; for ``torch.utils.data.DataLoader``."""

    def __init__(self, triplets: list[list[Path | None]], size: tuple[int, int], length: int):
        self.triplets, self.size, self.length = triplets, size, length
        self.sizes = [(size[1] >> scale, size[0] >> scale) for scale in range(SCALES)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        from torchvision.transforms import ColorJitter
        from torchvision.transforms.functional import to_tensor

        if index >= self.length:
            raise IndexError(index)
        flip, jittered = random.random() > 0.5, random.random() > 0.5
        jitter = ColorJitter(**JITTER) if jittered else lambda image: image
        sample = {}
        for frame, path in enumerate(self.triplets[index % len(self.triplets)]):
            image = Image.new("RGB", (100, 100))
            if path is not None:
                with Image.open(path) as file:
                    image = file.convert("RGB")
            if flip:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for scale, size in enumerate(self.sizes):
                image = image.resize(size, Image.Resampling.LANCZOS)
                sample[f"color_{frame}_{scale}"] = to_tensor(image)
                sample[f"color_aug_{frame}_{scale}"] = to_tensor(jitter(image))
        return sample


def torch_loader(config: Config, batches: int) -> Any:
    """A shuffling DataLoader of so many batches an epoch; its workers live on from epoch to epoch."""
    import torch

    listing = raw.list_split(config.data, "train")
    triplets = [
        [None if file == MISSING else listing.root / listing.files[file].image for file in row]
        for row in listing.triplets.tolist()
    ]
    dataset = ReferenceDataset(triplets, (config.data.height, config.data.width), batches * config.data.batch_size)
    return torch.utils.data.DataLoader(
        dataset,
        config.data.batch_size,
        shuffle=True,
        num_workers=config.data.threads,
        drop_last=True,
        persistent_workers=True,
        multiprocessing_context="spawn",  # the threads of JAX do not survive a fork
    )
