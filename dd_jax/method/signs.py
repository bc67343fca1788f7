"""Signs of a collapse in training: cheap means over arrays of the step. No gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import Config, ModelConfig
from dd_jax.geometry.camera import backproject, disp_to_depth
from dd_jax.geometry.warp import reproject
from dd_jax.method.cost_volume import depth_bins
from dd_jax.method.objective import LossInputs
from dd_jax.runtime import reduce
from dd_jax.types import CostVolume, Metrics

sg = jax.lax.stop_gradient

GROUPS = ("disparity_spread", "motion", "supervision", "matching")
"""First part of the names of :func:`signs`, by which they differ from loss terms."""

STRIDE = 8
"""Every so many rows and columns a pixel is projected, to see whether the source frames show it."""


def signs(x: LossInputs, depth_range: Float[Array, "2"], frozen: bool) -> Metrics:
    """Metrics by name. Each is a mean over samples of all devices, so that parts of a batch and steps may be averaged further.

    ``disparity_spread/NETWORK``
      standard deviation of an image's inverse depth over its mean.
    ``motion/parallax``, ``motion/parallax_squared``, ``motion/rotation``
      distance to the source frames over the harmonic mean depth, its square (spread over samples), and rotation in degrees.
    ``supervision/visible``, ``supervision/masked``, ``supervision/reliable``
      shares of pixels: inside a source frame, by the depth of the finest network; without photometric error for the
      single-frame network; with photometric error for the student.
    ``matching/confident``, ``matching/at_border``, ``matching/contrast``
      over all cells of the cost volume, 0 where a cell is not observed at every bin or its sample is augmented: 1; 1 if the
      cheapest bin is the first or last; 1 - smallest over mean cost.
    """
    config, outputs, exists = x.config, x.outputs, x.exists
    disps = sg({"teacher" if outputs.student else "single_frame": outputs.teacher_disps[0]})
    found = {}
    if outputs.student is not None:
        disps["student"] = sg(outputs.student.disps[0])
        counted = sg(outputs.student.volume.confidence) * ~outputs.student.augmented[:, None, None]
        found |= matching(sg(outputs.student.volume), counted, depth_range, config)
        found["supervision/reliable"] = jnp.mean(sg(x.reliable), dtype=jnp.float32)
    if config.sc.enabled:
        found["supervision/masked"] = 1 - jnp.mean(sg(x.planes.valid))
    elif config.loss.automask and not frozen:
        found["supervision/masked"] = 1 - jnp.mean(x.levels[0].teacher_errors[1][0], dtype=jnp.float32)
    for name, disp in disps.items():
        found[f"disparity_spread/{name}"] = jnp.mean(
            spread(1 / disp_to_depth(disp, config.model.min_depth, config.model.max_depth))
        )
    finest = next(reversed(disps.values()))
    found |= motion(sg(outputs.T_source_from_target), finest, config.model)
    shown = visible(finest, sg(outputs.T_source_from_target), x.batch.K, config.model) & exists[:, :, None, None]
    found["supervision/visible"] = jnp.mean(shown, dtype=jnp.float32)
    means = reduce.mean(jnp.stack([*found.values()]), x.axis, dims=())  # one sum over the devices
    return dict(zip(found, means))


def spread(x: Float[Array, "b h w"]) -> Float[Array, " b"]:
    """Standard deviation over mean of every image."""
    return jnp.std(x, axis=(1, 2)) / jnp.mean(x, axis=(1, 2))


def motion(T: Float[Array, "b f 4 4"], disp: Float[Array, "b h w"], config: ModelConfig) -> Metrics:
    """Size of the predicted motion, independent of the free scale of depth."""
    nearness = 1 / disp_to_depth(jnp.mean(disp, axis=(1, 2)), config.min_depth, config.max_depth)  # 1 / depth is linear in disp
    parallax = jnp.linalg.norm(T[..., :3, 3], axis=-1) * nearness[:, None]
    return {
        "motion/parallax": jnp.mean(parallax),
        "motion/parallax_squared": jnp.mean(parallax**2),
        "motion/rotation": jnp.mean(rotation_degrees(T)),
    }


def rotation_degrees(T: Float[Array, "*n 4 4"]) -> Float[Array, "*n"]:
    """Angle of rotations below 90 degrees, exact for small ones."""
    skew = jnp.stack([T[..., i, j] - T[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))])
    return jnp.rad2deg(jnp.arcsin(jnp.minimum(jnp.linalg.norm(skew, axis=0) / 2, 1.0)))


def visible(
    disp: Float[Array, "b h w"], T: Float[Array, "b f 4 4"], K: Float[Array, "b 3 3"], config: ModelConfig
) -> Bool[Array, "b f hs ws"]:
    """Whether each source frame shows the point of a target pixel; every :data:`STRIDE` rows and columns."""
    height, width = disp.shape[1:]
    first = STRIDE // 2
    depth = disp_to_depth(disp[:, first::STRIDE, first::STRIDE], config.min_depth, config.max_depth)
    K = K.at[:, :2, 2].add(-first) * jnp.array([[1 / STRIDE], [1 / STRIDE], [1.0]])
    coords = STRIDE * jnp.moveaxis(reproject(depth, K, jnp.moveaxis(T, 1, 0)), 0, 1) + first
    points = backproject(depth, K)[:, None]
    ahead = jnp.sum(points * T[:, :, None, None, 2, :3], axis=-1) + T[:, :, None, None, 2, 3] > 0
    return ahead & jnp.all((coords >= 0) & (coords <= jnp.array([width - 1.0, height - 1.0])), axis=-1)


def matching(volume: CostVolume, counted: Float[Array, "b hq wq"], depth_range: Float[Array, "2"], config: Config) -> Metrics:
    """How the cost volume is used."""
    bins = depth_bins(depth_range, config.cost_volume)
    ends = (volume.lowest >= (1 - 1e-5) / bins[0]) | (volume.lowest <= (1 + 1e-5) / bins[-1])
    contrast = 1 - jnp.min(volume.costs, axis=-1) / (jnp.mean(volume.costs, axis=-1) + 1e-12)
    return {
        "matching/confident": jnp.mean(counted),
        "matching/at_border": jnp.mean(counted * ends),
        "matching/contrast": jnp.mean(counted * contrast),
    }
