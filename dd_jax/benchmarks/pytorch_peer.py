"""The networks of the PyPI package ``manydepth`` (PyTorch) for comparison; extra ``peer``.

The package lacks a complete trainer, so no training step is measured: inference of the two-frame student with its pose network,
and forward and backward passes of pose, teacher and student (with cost volume), with random weights.
"""

import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dd_jax.config import Config, ConfigError
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch

PACKAGES = ("torch", "torchvision", "manydepth")


def check(config: Config) -> None:
    """Checks that the package is installed and has the networks of ``config``.

    Raises:
      ConfigError: it is not installed, or its networks differ.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise ConfigError(f"comparing with ManyDepth in PyTorch needs {names}: pip install -e '.[peer]'")
    if not config.model.student or config.model.width != 64:
        raise ConfigError(
            "ManyDepth in PyTorch has the published networks only: set --config.model.student=True and --config.model.width=64"
        )


def versions() -> str:
    """Versions of the peer, for the heading of a table."""
    return f"manydepth {importlib.metadata.version('manydepth')}, PyTorch {importlib.metadata.version('torch')}"


class Peer:
    """The networks, on the GPU if JAX uses one, else on the CPU with one thread per core of this process.

    Args:
      config: size of images and cost volume, layers of the student.
      batch: as the loader yields it, three frames.
    """

    def __init__(self, config: Config, batch: Batch):
        import torch
        from manydepth import layers, networks

        warnings.filterwarnings("ignore", module="torchvision")  # the package uses deprecated torchvision arguments

        if hasattr(os, "sched_getaffinity"):  # importing the package sets one thread
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._torch, self._networks, self._layers = torch, networks, layers
        self._cuda = jax.default_backend() == "gpu" and torch.cuda.is_available()
        self._config = config
        images = np.moveaxis(np.asarray(batch.images, np.float32) / 255, -1, 2)
        self._frames = [self._on_device(torch.from_numpy(images[:, place].copy())) for place in range(3)]
        K = np.zeros((len(images), 4, 4), np.float32)
        K[:, :3, :3] = np.array([[0.25], [0.25], [1.0]], np.float32) * batch.K
        K[:, 3, 3] = 1
        self._K = self._on_device(torch.from_numpy(K))
        self._inverse_K = self._on_device(torch.from_numpy(np.linalg.inv(K)))

    def inference(self) -> Callable[[], Any]:
        """Disparity of the first sample from its target and previous frame, in evaluation mode."""
        pose, student = self._pose_networks(train=False), self._student_networks(train=False)
        previous, target = (self._frames[place][:1] for place in (PREVIOUS, TARGET))

        def run() -> Any:
            with self._torch.inference_mode():
                T = self._pose(pose, previous, target, invert=True)
                return self._wait(self._student(student, target, previous, T, slice(0, 1))[("disp", 0)])

        return run

    def training(self) -> dict[str, Callable[[], Any]]:
        """Forward and backward pass of the mean output on the whole batch, in training mode: pose, teacher, student."""
        torch, (previous, target, following) = self._torch, (self._frames[place] for place in (PREVIOUS, TARGET, NEXT))
        pose, student = self._pose_networks(train=True), self._student_networks(train=True)
        encoder = self._networks.ResnetEncoder(18, False)
        teacher = self._prepare([encoder, self._networks.DepthDecoder(encoder.num_ch_enc)], train=True)
        with torch.no_grad():
            T = self._pose(pose, previous, target, invert=True)

        def poses() -> list[Any]:
            return [self._pose(pose, previous, target, invert=True), self._pose(pose, target, following, invert=False)]

        return {
            "pose": lambda: self._gradients(pose, poses()),
            "teacher": lambda: self._gradients(teacher, teacher[1](teacher[0](target)).values()),
            "student, cost volume": lambda: self._gradients(
                student, self._student(student, target, previous, T, slice(None)).values()
            ),
        }

    def _pose_networks(self, train: bool) -> list[Any]:
        encoder = self._networks.ResnetEncoder(18, False, num_input_images=2)
        decoder = self._networks.PoseDecoder(encoder.num_ch_enc, num_input_features=1, num_frames_to_predict_for=2)
        return self._prepare([encoder, decoder], train)

    def _student_networks(self, train: bool) -> list[Any]:
        data, volume = self._config.data, self._config.cost_volume
        encoder = self._networks.ResnetEncoderMatching(
            self._config.model.student_layers,
            False,
            input_height=data.height,
            input_width=data.width,
            min_depth_bin=volume.min_depth,
            max_depth_bin=volume.max_depth,
            num_depth_bins=volume.bins,
            adaptive_bins=True,
        )
        return self._prepare([encoder, self._networks.DepthDecoder(encoder.num_ch_enc)], train)

    def _pose(self, networks: list[Any], first: Any, second: Any, invert: bool) -> Any:
        encoder, decoder = networks
        rotation, translation = decoder([encoder(self._torch.cat([first, second], 1))])
        return self._layers.transformation_from_parameters(rotation[:, 0], translation[:, 0], invert=invert)

    def _student(self, networks: list[Any], target: Any, lookup: Any, T: Any, samples: slice) -> Any:
        encoder, decoder = networks
        volume, K, inverse_K = self._config.cost_volume, self._K[samples], self._inverse_K[samples]
        features, _, _ = encoder(target, lookup[:, None], T[:, None], K, inverse_K, volume.min_depth, volume.max_depth)
        return decoder(features)

    def _prepare(self, networks: list[Any], train: bool) -> list[Any]:
        for network in networks:
            network.train(train)
            if self._cuda:
                network.cuda()
        return networks

    def _gradients(self, networks: list[Any], outputs: Any) -> Any:
        parameters = [x for network in networks for x in network.parameters() if x.requires_grad]
        loss = sum(output.mean() for output in outputs)
        return self._wait(self._torch.autograd.grad(loss, parameters, allow_unused=True))  # the ImageNet classifier is unused

    def _on_device(self, tensor: Any) -> Any:
        return tensor.cuda() if self._cuda else tensor

    def _wait(self, result: Any) -> Any:
        if self._cuda:
            self._torch.cuda.synchronize()
        return result
