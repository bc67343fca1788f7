"""Loader throughput from cached frames, compared with a PyTorch DataLoader like those of Monodepth2 and ManyDepth.

Both yield batches of triplets of the same size from the same drives, with the same number of workers, in alternation. Our
loader copies from the frame cache; flip and jitter are part of the training step, so it is also measured with them, on the
device of this machine. The other decodes PNG or JPEG, flips, makes a LANCZOS pyramid of four sizes and jitters on the CPU.
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
    """Config of the benchmark: 192x640, no masks, drives in ``root`` at KITTI's native size, rendered there if missing.

    Raises:
      ConfigError: ``root`` contains other data.
    """
    synthetic.make(root, "tiny", height=375, width=1242)
    data = DataConfig(root=root, resize="lanczos", masks="none", batch_size=batch_size, threads=workers)
    return Config(name="loader", data=data)


def benchmark(config: Config, batches: int, repeats: int) -> dict[str, Any]:
    """Measures, prints, and returns the values of the last line: frames per second, medians over ``repeats`` rounds.

    Without torch and torchvision only our loader is measured.

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
    print("torch and torchvision are not installed: only ours was measured" if ratio is None else f"ratio {ratio:.2f}")
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
    """Training triplets as in Monodepth2 and ManyDepth; for ``torch.utils.data.DataLoader``."""

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
    """A shuffling DataLoader of ``batches`` batches per epoch, with persistent workers."""
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
        multiprocessing_context="spawn",  # JAX is multithreaded and must not be forked
    )
