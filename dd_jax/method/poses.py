"""Relative camera poses of a batch of triplets, from the pose network."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dd_jax.geometry.se3 import compose, invert_pose, pose_from_euler, pose_from_parameters
from dd_jax.networks.model import Networks
from dd_jax.types import NEXT, PREVIOUS, TARGET, frames_at


def predict_poses(model: Networks, inputs: Float[Array, "b f h w 3"]) -> Float[Array, "b sources 4 4"]:
    """``T_source_from_target``. The pose network sees pairs in temporal order, so the pose to t-1 is inverted (Monodepth2)."""
    count = inputs.shape[1] - 1
    rotation, translation = model.pose(_merge_pairs(inputs[:, :-1]), _merge_pairs(inputs[:, 1:]), groups=count)
    return _invert_first(pose_from_parameters(rotation, translation).reshape(-1, count, 4, 4))


def predict_backward_poses(model: Networks, inputs: Float[Array, "b 3 h w 3"]) -> Float[Array, "b 2 4 4"]:
    """``T_target_from_source``, from the same pairs in reversed order."""
    rotation, translation = model.pose(_merge_pairs(inputs[:, 1:]), _merge_pairs(inputs[:, :-1]), backward=jnp.array(True))
    return _invert_first(pose_from_parameters(rotation, translation).reshape(-1, 2, 4, 4))


def forward_backward_poses(
    model: Networks, inputs: Float[Array, "b 3 h w 3"], T_source_from_target: Float[Array, "b 2 4 4"]
) -> Float[Array, "b 2 4 4"]:
    """Forward and backward pose of every pair composed: the identity if the pose network is consistent (the poster)."""
    return compose(T_source_from_target, predict_backward_poses(model, inputs))


def predict_direct_poses(
    model: Networks, inputs: Float[Array, "b f h w 3"], from_source: bool = False
) -> Float[Array, "b sources 4 4"]:
    """Poses between the target and each source without inversion, with Euler angles (SC-Depth).

    ``T_source_from_target``, or ``T_target_from_source`` with ``from_source``.
    """
    places = (PREVIOUS, NEXT)[: inputs.shape[1] - 1]
    sources = frames_at(inputs, places)
    first, second = jnp.broadcast_to(inputs[:, TARGET, None], sources.shape), sources
    if from_source:
        first, second = second, first
    backward = jnp.tile(jnp.array([(place == PREVIOUS) != from_source for place in places]), len(inputs))
    rotation, translation = model.pose(_merge_pairs(first), _merge_pairs(second), groups=len(places), backward=backward)
    return pose_from_euler(rotation, translation).reshape(-1, len(places), 4, 4)


def _merge_pairs(frames: Float[Array, "b n h w 3"]) -> Float[Array, "b*n h w 3"]:
    return frames.reshape(-1, *frames.shape[2:])


def _invert_first(T: Float[Array, "b n 4 4"]) -> Float[Array, "b n 4 4"]:
    return jnp.concatenate([invert_pose(T[:, 0])[:, None], T[:, 1:]], axis=1)
