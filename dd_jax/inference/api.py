"""Depth and camera motion from a trained model, for other programs; ``import dd_jax`` exports the public names."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from dd_jax.checkpoints import saved
from dd_jax.checkpoints.run_folder import Restored
from dd_jax.config import Config, ConfigError, EvalConfig
from dd_jax.data import video_camera
from dd_jax.evaluation import metrics
from dd_jax.inference import preprocess
from dd_jax.inference.metric_scale import CameraHeight, Prediction, Scale, Scaler, missing, scaled
from dd_jax.inference.trajectory import Trajectory
from dd_jax.method import compiled_steps
from dd_jax.runtime.pipeline import in_groups, one_behind
from dd_jax.types import PREVIOUS, Batch, Predictions

END = object()
NETWORKS = ("auto", "student", "teacher")


def load(path: str | Path, which: str | int = "best") -> "Model":
    """A trained model from the folder of a run, its ``checkpoints`` folder, or a folder that :meth:`Model.save` wrote.

    Args:
      path: the folder, an address on the Hugging Face hub, ``hf://owner/name`` or ``hf://owner/name@revision``, or
        "rendered", a small model that comes with the library, trained on rendered streets.
      which: checkpoint of a run: "best" on its validation split | "latest" | a step.

    Raises:
      ConfigError: no such folder, an empty one, or a damaged file.
    """
    folder = saved.find(path)
    return Model(saved.restore(folder, which), folder)


def camera_from_fov(fov: float, size: tuple[int, int]) -> Float64[np.ndarray, "3 3"]:
    """Intrinsics K of frames of ``size`` (height, width) from their horizontal field of view in degrees.

    Assumes square pixels and the principal point at the image centre, as in most cameras without strong lens distortion.

    Raises:
      ConfigError: ``fov`` is not between 0 and 180 degrees.
    """
    fx, fy, cx, cy = video_camera.from_fov(fov, size[1], size[0])
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


class Model:
    """A trained model; made by :func:`load`.

    Frames are (H, W, 3) RGB, uint8 or float in [0, 1], of any size; ``K`` is (3, 3) in pixels of these frames, integers at
    pixel centres. Depth is (H, W) float32 along the optical axis, in the networks' own unit or, with a scale, in metres.

    >>> import dd_jax
    >>> model = dd_jax.load("runs/kitti")
    >>> K = dd_jax.camera_from_fov(81.0, frames[0].shape[:2])
    >>> depth = model.predict(frames[1], previous=frames[0], K=K)
    >>> depth.shape == frames[1].shape[:2], depth.dtype
    (True, dtype('float32'))

    The first frame of a video has no previous frame; the single-frame network predicts it. The known height of the camera
    above the road gives metres:

    >>> stream = model.stream(frames, K=K, scale=dd_jax.CameraHeight(1.65))
    >>> for depth in stream:
    ...     assert depth.shape == frames[0].shape[:2]
    >>> stream.trajectory.shape == (len(frames), 4, 4)
    True
    """

    def __init__(self, restored: Restored, folder: Path | None = None):
        self._restored, self._folder = restored, folder
        self._predict = compiled_steps.compile_predict_step(restored.config)  # compiled once: the network size is fixed

    @property
    def config(self) -> Config:
        """Config of the training run."""
        return self._restored.config

    @property
    def step(self) -> int:
        """Number of training steps."""
        return self._restored.step

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the arrays and the config."""
        return saved.digest(self._restored)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network input, to which frames are resized."""
        return self.config.data.height, self.config.data.width

    def save(self, folder: str | Path, half: bool = False) -> None:
        """Writes ``model.safetensors`` and ``config.json``, which :func:`load` reads, and a model card, ``README.md``.

        The card has the scores of ``metrics.json`` if the folder that this model was loaded from has one.

        Args:
          half: kernels in float16: half the size, and depth that differs by about a thousandth.

        Raises:
          ConfigError: the folder cannot be written, or the scores are damaged.
        """
        scores = None if self._folder is None else saved.scores_of(self._folder)
        saved.write(Path(folder).expanduser(), self._restored, scores, half)

    def predict(
        self,
        frame: np.ndarray,
        previous: np.ndarray | None = None,
        *,
        K: np.ndarray | None = None,
        following: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        previous_mask: np.ndarray | None = None,
        following_mask: np.ndarray | None = None,
        scale: Scale = 1.0,
        network: str = "auto",
    ) -> Float32[np.ndarray, "H W"]:
        """Depth of one frame.

        Args:
          previous: the frame ``config.data.frame_step`` before (by default the previous one); without it the single-frame
            network predicts.
          K: needed to match with the previous frame, and for ``CameraHeight``.
          following: the frame as many after, for models that match with it too (``cost_volume.future_frame``).
          mask, previous_mask, following_mask: (H, W), nonzero = potentially dynamic object; None = no object.
          scale: a factor on the depth, or how to find it: ``Median``, ``CameraHeight`` or ``Speed``.
          network: "auto" | "student" (two frames) | "teacher" (one frame).

        Raises:
          ConfigError: frames, masks or K of the wrong shape or type, a missing input, or a scale that cannot be found.
        """
        scaler = Scaler(scale, self.config.eval, self.config.data.frame_step)
        future = self.config.cost_volume.future_frame
        if following is not None and not future:
            raise ConfigError("this model does not use the following frame (cost_volume.future_frame is off): leave it out")
        if network == "student" and previous is None:
            raise ConfigError("the student matches with the previous frame: give previous=, or network='auto'")
        for name, other, its_mask in (("previous", previous, previous_mask), ("following", following, following_mask)):
            if other is None and its_mask is not None:
                raise ConfigError(f"{name}_mask= is given without its frame: give {name}= too, or leave the mask out")
        data, size = self.config.data, preprocess.as_uint8(frame, "the frame").shape[:2]

        def neighbour(other: np.ndarray | None, its_mask: np.ndarray | None, where: str) -> preprocess.NetworkInput | None:
            if other is None:
                return None
            resized = preprocess.to_network_size(other, its_mask, data, where)
            preprocess.check_size(other.shape[:2], size, where)
            return resized

        K = self.camera(K, size, self.choose(network, previous is not None), scale)
        before = neighbour(previous, previous_mask, "the previous frame")
        after = neighbour(following, following_mask, "the following frame")
        batch = preprocess.assemble(before, preprocess.to_network_size(frame, mask, data, "the frame"), after, K, self.config)
        prediction = self.finish(self.start(batch), network)[0]
        factor = scaler.factor(prediction, K)
        if factor is None:
            raise ConfigError(f"the frame does not determine the scale: {missing(scale)}")
        return full_size(prediction, size, factor)

    def stream(
        self,
        frames: Iterable[np.ndarray],
        *,
        K: np.ndarray | None = None,
        masks: Iterable[np.ndarray | None] | None = None,
        scale: Scale = 1.0,
        network: str = "auto",
        batch_size: int = 1,
    ) -> "Stream":
        """Depth of consecutive frames, as an iterator; reads one batch ahead, so that the device never waits.

        Arguments and errors are those of :meth:`predict`, for all frames; ``masks`` has one per frame. All frames have the
        same camera and size. ``batch_size`` frames are predicted at once, which suits a GPU. The first ``config.data.frame_step``
        frames have no previous frame.
        """
        check_batch_size(batch_size)
        if network == "student":
            raise ConfigError("the first frame of a stream has no previous frame: network='auto' uses the student for all others")
        self.choose(network, True)
        for name, items in (("frames", frames), ("masks", [] if masks is None else masks)):
            if not hasattr(items, "__iter__"):
                raise ConfigError(f"{name} must be a sequence of arrays, such as a list or a generator: it is {items!r}")
        scaler = Scaler(scale, self.config.eval, self.config.data.frame_step)
        return Stream(self, frames, K, masks, scaler, network, batch_size)

    def choose(self, network: str, has_previous: bool) -> str:
        """The network that predicts, "student" or "teacher".

        Raises:
          ConfigError: no such network, or "student" for a single-frame model.
        """
        if network not in NETWORKS:
            raise ConfigError(f"network={network!r} is not one of {', '.join(map(repr, NETWORKS))}")
        if network == "student" and not self.config.model.student:
            raise ConfigError("this model has no student, only a single-frame network: use network='auto'")
        return "student" if self.config.model.student and has_previous and network != "teacher" else "teacher"

    def camera(self, K: np.ndarray | None, size: tuple[int, int], network: str, scale: Scale) -> Float32[np.ndarray, "3 3"]:
        """``K`` at the network size; may be None if neither the network nor the scale needs it.

        Raises:
          ConfigError: missing although needed, or invalid.
        """
        if K is None and (network == "student" or isinstance(scale, CameraHeight)):
            needs = "CameraHeight needs" if network == "teacher" else "matching with the previous frame needs"
            raise ConfigError(f"{needs} the camera: give K, (3, 3) in pixels of the frame, like dd_jax.camera_from_fov(60, size)")
        return preprocess.camera(K, size, self.config.data)

    def start(self, batch: Batch) -> tuple[Predictions, list[bool]]:
        """Predicts samples without waiting for the device; also returns whether each has a previous frame."""
        return self._predict(self._restored.state, batch), batch.exists[:, PREVIOUS].tolist()

    def finish(self, started: tuple[Predictions, list[bool]], network: str) -> list[Prediction]:
        """Waits for the result of :meth:`start`; one prediction per sample."""
        predictions, has_previous = started
        chosen = [self.choose(network, has) for has in has_previous]
        maps = {who: np.asarray(getattr(predictions, who)) for who in {*chosen}}
        T = np.asarray(predictions.T_previous_from_target)
        return [
            Prediction(maps[who][sample], T[sample] if has else None, who)
            for sample, (who, has) in enumerate(zip(chosen, has_previous))
        ]


class Stream(Iterator[np.ndarray]):
    """Depth maps (H, W) float32 of consecutive frames, and the camera trajectory of the frames returned so far."""

    def __init__(
        self,
        model: Model,
        frames: Iterable[np.ndarray],
        K: np.ndarray | None,
        masks: Iterable[np.ndarray | None] | None,
        scaler: Scaler,
        network: str,
        batch_size: int,
    ):
        self._model, self._scaler, self._network, self._batch_size = model, scaler, network, batch_size
        self._trajectory = Trajectory(model.config.data.frame_step)
        self._steps = self._run(iter(frames), K, itertools.repeat(None) if masks is None else iter(masks))

    def __next__(self) -> Float32[np.ndarray, "H W"]:
        size, prediction, factor = next(self._steps)
        self._trajectory.add(prediction, factor)
        return full_size(prediction, size, factor)

    @property
    def trajectory(self) -> Float64[np.ndarray, "n 4 4"]:
        """T_first_from_camera of every frame so far, in the unit of the depth; x right, y down, z forward.

        See :class:`dd_jax.inference.trajectory.Trajectory` for models with ``data.frame_step`` > 1.
        """
        return np.stack(self._trajectory.poses) if self._trajectory.poses else np.empty((0, 4, 4))

    def _run(self, frames: Iterator[np.ndarray], K: np.ndarray | None, masks: Iterator) -> Iterator[Any]:
        first = next(frames, None)
        if first is None:
            return
        model, config = self._model, self._model.config
        size = preprocess.as_uint8(first, "frame 0").shape[:2]
        K = model.camera(K, size, model.choose(self._network, True), self._scaler.scale)

        def resized() -> Iterator[preprocess.NetworkInput]:
            for number, frame in enumerate(itertools.chain([first], frames)):
                mask = next(masks, END)
                if mask is END:
                    raise ConfigError(f"masks end before frame {number}: give one for each frame, None for no object")
                item = preprocess.to_network_size(frame, mask, config.data, f"frame {number}")
                preprocess.check_size(frame.shape[:2], size, f"frame {number}")
                yield item

        triplets = preprocess.neighbours(resized(), config.cost_volume.future_frame, config.data.frame_step)
        samples = in_groups((preprocess.assemble(*triplet, K, config) for triplet in triplets), self._batch_size)
        started = ((group, model.start(preprocess.stack_samples(group, self._batch_size))) for group in samples)
        finished = (
            (size, prediction)
            for group, begun in one_behind(started)
            for _, prediction in zip(group, model.finish(begun, self._network))
        )
        yield from scaled(finished, self._scaler, K)


def check_batch_size(batch_size: int) -> None:
    """Checks the number of frames in a batch.

    Raises:
      ConfigError: it is not positive.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be positive: the number of frames predicted at once")


def full_size(prediction: Prediction, size: tuple[int, int], factor: float) -> Float32[np.ndarray, "H W"]:
    """Depth of (height, width) ``size`` times ``factor``."""
    return metrics.depth_at(prediction.inverse_depth, size, EvalConfig()) * np.float32(factor)
