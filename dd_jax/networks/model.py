"""All networks of a system as one module, and its conversion to and from plain trees of arrays.

Only this file splits and merges NNX modules; all other code sees ``params`` and ``batch_stats``, nested dicts of
arrays whose first level names the network: ``teacher``, ``pose``, ``student``, ``flow``.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dd_jax.config import Config, CostVolumeConfig
from dd_jax.networks.depth_decoder import DepthDecoder
from dd_jax.networks.flow_net import FlowNet
from dd_jax.networks.layers import Draws
from dd_jax.networks.matching import MatchingEncoder
from dd_jax.networks.pose import PoseNet
from dd_jax.networks.resnet import ResNet, feature_channels

Tree = dict[str, Any]


READ_OUT = re.compile(r"heads|out|flow\d")
"""Names of the output layers (depth, pose, flow); in bfloat16 their results would have fewer than three digits."""


class Teacher(nnx.Module):
    """Single-frame depth network (Monodepth2): one image to disparities at four scales."""

    def __init__(self, width: int, initial_disp: float, smooth: bool, draws: Draws, axis: str | None):
        self.encoder = ResNet(18, width=width, draws=draws, axis=axis)
        channels = feature_channels(18, width)
        self.decoder = DepthDecoder(channels, width=width, initial_disp=initial_disp, smooth=smooth, draws=draws)

    def __call__(self, image: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _"], ...]:
        return self.decoder(self.encoder(image))


class Student(nnx.Module):
    """Multi-frame depth network (ManyDepth): the caller builds the cost volume between ``features`` and ``fuse``."""

    def __init__(
        self, layers: int, width: int, volume: CostVolumeConfig, fusion: str, initial_disp: float, draws: Draws, axis: str | None
    ):
        matching = {"bins": volume.bins, "temperature": volume.temperature, "fusion": fusion}
        self.encoder = MatchingEncoder(layers, width=width, **matching, draws=draws, axis=axis)
        self.decoder = DepthDecoder(feature_channels(layers, width), width=width, initial_disp=initial_disp, draws=draws)


class Networks(nnx.Module):
    """All networks of a system; ``student`` is None for single-frame systems, ``flow`` is None for rigid scenes."""

    def __init__(self, config: Config, draws: Draws, axis: str | None = None):
        model = config.model
        width, initial_disp = model.width, 0.0
        if model.initial_depth > 0:
            far = 1 / model.max_depth
            initial_disp = (1 / model.initial_depth - far) / (1 / model.min_depth - far)
        fusion = config.ds.fusion if config.ds.enabled else ""
        self.teacher = Teacher(width, initial_disp, config.sc.enabled, draws, axis)
        self.pose = PoseNet(
            width,
            rotation_scale=model.rotation_scale,
            translation_scale=model.translation_scale,
            initial_forward=model.initial_forward * config.data.frame_step,
            downscale=model.pose_downscale,
            draws=draws,
            axis=axis,
        )
        self.student = (
            Student(model.student_layers, width, config.cost_volume, fusion, initial_disp, draws, axis) if model.student else None
        )
        # DS-Depth's flow network sees three images, the rigid flow and the reprojection error of that flow.
        channels = {"inputs": 3 * 3 + 2 + 1, "outputs": 2} if config.ds.enabled else {}
        self.flow = FlowNet(width, **channels, draws=draws) if model.flow or config.ds.enabled else None


def initialise(config: Config, seed: int) -> tuple[Tree, Tree]:
    """Fresh ``(params, batch_stats)``, a function of the seed alone."""

    return split(Networks(config, Draws(seed)))


def split(model: Networks) -> tuple[Tree, Tree]:
    """``(params, batch_stats)`` of a module, as nested dicts of arrays."""
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def merge(params: Tree, batch_stats: Tree, config: Config, axis: str | None, train: bool, frozen: bool = False) -> Networks:
    """The module that computes with these arrays.

    Args:
      params: may hold tracers; the module is a copy and never mutates them.
      batch_stats: read in evaluation, read and replaced inside the module in training (fetch them with :func:`split`).
      axis: name of the mapped device axis over which batch statistics are taken, or None.
      train: batch norms use the batch's statistics; otherwise the running ones.
      frozen: teacher and pose stay in evaluation mode although ``train`` is set.
    """
    if config.model.precision != "float32":
        params = jax.tree_util.tree_map_with_path(lambda path, x: _rounded(path, x, config.model.precision), params)
    abstract = nnx.eval_shape(lambda: Networks(config, Draws(), axis))
    graph, param_state, stat_state = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    nnx.replace_by_pure_dict(param_state, params)
    nnx.replace_by_pure_dict(stat_state, batch_stats)
    model = nnx.merge(graph, param_state, stat_state, copy=True)
    if train:
        model.train()
        model.set_attributes(remat=config.train.remat)
    else:
        model.eval()
    if frozen:
        model.teacher.eval()
        model.pose.eval()
    return model


def student_from_teacher(teacher: Tree, student: Tree) -> Tree:
    """Arrays of a student (parameters or batch statistics) that predicts what the teacher does.

    The layer that fuses features and costs passes the features on and ignores the costs: what the student learns beyond the
    teacher comes from the costs.
    """
    teacher = jax.tree.map(jnp.copy, teacher)  # a training step gives up its arrays, each once
    encoder = student.get("encoder", {}) | {"resnet": teacher["encoder"]}
    if "reduce" in encoder:
        kernel = encoder["reduce"]["kernel"]
        features = kernel.shape[-1]
        centre = jnp.zeros_like(kernel).at[1, 1, :features].set(jnp.eye(features, dtype=kernel.dtype))
        encoder["reduce"] = {"kernel": centre, "bias": jnp.zeros_like(encoder["reduce"]["bias"])}
    return student | {"encoder": encoder} | ({"decoder": teacher["decoder"]} if "decoder" in teacher else {})


def _rounded(path: tuple, x: Array, precision: str) -> Array:
    """A kernel in reduced precision; biases, scales, statistics and the output layers stay in float32."""
    last = any(READ_OUT.fullmatch(key.key) for key in path)
    return x if x.ndim == 1 or last else x.astype(precision)
