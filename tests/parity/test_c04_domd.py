"""Forward warp and compositing against DynamicDepth.

Three things differ by design:
- The reference truncates coordinates toward zero, so that points just left of or above the image land in its first column and
  row. These are not compared.
- It inverts the pose through mismatched Euler angles. Our warp is compared with the exact inverse where the fixture contains it;
  the other comparisons give our warp the published inverse.
- It pastes all nonzero values, per channel, including object borders blended with black. Ours divides by the object's share and
  pastes from a share of one half. The borders are not compared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nchw, nhwc

from dd_jax.config import DomdConfig
from dd_jax.geometry import splat
from dd_jax.geometry.se3 import invert_pose, pose_from_euler
from dd_jax.method import domd
from dd_jax.types import TARGET, Batch

forward_warp = jax.jit(splat.forward_warp, static_argnums=4)


def pose(rows):
    return jnp.concatenate([rows, np.tile(np.float32([[[0, 0, 0, 1]]]), (len(rows), 1, 1))], axis=1)


def published_vector(T):
    """Translation and angles of the inverse pose; the angles are extracted as those of Rz Ry Rx."""
    inverse = invert_pose(T)
    x, z = jnp.arctan2(inverse[..., 2, 1], inverse[..., 2, 2]), jnp.arctan2(inverse[..., 1, 0], inverse[..., 0, 0])
    return jnp.concatenate([inverse[..., :3, 3], jnp.stack([x, -jnp.arcsin(inverse[..., 2, 0]), z], axis=-1)], axis=-1)


def published_inverse(T):
    """The reference composes these angles as Rx Ry Rz."""
    vector = published_vector(T)
    return pose_from_euler(vector[..., 3:], vector[..., :3])


def with_published_inverse(function):
    """The function, compiled with the reference's inverse pose in the forward warp."""

    def traced(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splat, "invert_pose", published_inverse)
            return function(*args)

    return traced


published_warp = jax.jit(with_published_inverse(splat.forward_warp), static_argnums=4)


def beyond_first(shape):
    mask = np.zeros(shape, bool)
    mask[..., 1:, 1:] = True
    return mask


def check_warp(golden, prefix, found, inner):
    """Compares those of the three results of a forward warp that the file contains."""
    image, depth, valid = found
    arrays = {"img_w": nchw(image), "depth_w": np.asarray(depth)[:, None], "valid": np.asarray(valid, np.float32)[:, None]}
    for name, value in arrays.items():
        if f"{prefix}.{name}" in golden:
            golden.check(f"{prefix}.{name}", value, where=inner[:, None])


@pytest.mark.golden("c04_forward_warp")
def test_forward_warp_parity(golden):
    depth, K = jnp.asarray(golden["in.depth"][:, 0]), jnp.asarray(golden["in.K"])
    image, whole = (jnp.asarray(nhwc(golden[f"in.{name}"])) for name in ("masked_image", "image"))
    inner = beyond_first(depth.shape)
    for case in sorted({name.split(".")[2] for name in golden.names("in.pose.*")}):
        T = pose(golden[f"in.pose.{case}"])
        golden.check(f"out.{case}.pose_vec_inv", published_vector(T))
        golden.check(f"out.{case}.rot_used", published_inverse(T)[:, :3, :3])
        golden.check(f"out.{case}.depth_splat", splat.splat_depth(depth, T, K, 3)[0], where=inner)
        check_warp(golden, f"out.{case}.exact_inverse", forward_warp(image, depth, T, K, 3), inner)
        for prefix, source, upscale in (("", image, 3), (".full", whole, 3), (".up1", image, 1), (".up2", image, 2)):
            if golden.names(f"out.{case}{prefix}.img_w"):
                check_warp(golden, f"out.{case}{prefix}", published_warp(source, depth, T, K, upscale), inner)


@pytest.mark.golden("c04_forward_warp_stages")
def test_forward_warp_stages_parity(golden):
    depth, K, image = (jnp.asarray(x) for x in (golden["in.depth"][:, 0], golden["in.K"], nhwc(golden["in.masked_image"])))
    inner = beyond_first(depth.shape)
    for case in sorted({name.split(".")[2] for name in golden.names("in.pose.*")}):
        T = pose(golden[f"in.pose.{case}"])
        u, v, z = splat.splat_points(depth, T, K, 3)
        golden.check(f"out.{case}.pcoords", np.stack([u, v], axis=-1))
        golden.check(f"out.{case}.Z", z[:, None])
        nearest, hit = splat.splat_depth(depth, T, K, 3)
        golden.check(f"out.{case}.depth_splat", nearest, where=inner)
        warped, _, valid = found = published_warp(image, depth, T, K, 3)
        check_warp(golden, f"out.{case}", found, inner)
        # The reference's valid masks before they are combined; ours are combined, so each is compared where the other is true.
        golden.check(f"out.{case}.inverse_warp_valid", valid, where=inner & np.asarray(hit))
        golden.check(f"out.{case}.img_inverse_warped", nchw(warped), where=(inner & np.asarray(valid))[:, None])


@pytest.mark.golden("c04_domd_composite")
def test_domd_composite_parity(golden):
    names = ("color_-1", "color_0", "color_1")
    images = np.stack([nhwc(golden[f"in.{name}"]) for name in names], axis=1)
    inputs = np.stack([nhwc(golden[f"in.{name}"]) for name in ("color_aug_-1", "color_aug_0", "color_1")], axis=1)
    masks = np.stack([golden[f"in.{name}"][:, 0] > 0.5 for name in ("doj_mask-1", "doj_mask", "doj_mask+1")], axis=1)
    count = len(images)
    arrays = [images, masks, golden["in.K"], np.ones((count, 3), bool), np.zeros(count, np.uint32), inputs]
    batch = Batch(*map(jnp.asarray, arrays))
    depth, T = golden["in.teacher_depth"][:, 0], np.stack([golden["in.cam_T_cam_-1"], golden["in.cam_T_cam_1"]], axis=1)

    def disentangle(config):
        run = with_published_inverse(lambda *args: domd.disentangle(args[0], (0, 2), 1, *args[1:], config))
        return jax.jit(run)(batch, depth, T, np.ones(count, bool))

    ours, without = disentangle(DomdConfig()), disentangle(DomdConfig(exclude_from_loss=True))
    for i, name in enumerate(("color_-1", "color_1")):
        colours, same = drawn_objects(batch, depth, T[:, i])
        golden.check(f"out.img_w_{name[6:]}", colours, where=beyond_first(depth.shape)[:, None])
        golden.check(f"out.{name}", nchw(ours.images[:, i]), where=same)
        golden.check(f"out.no_reproj_doj.{name}", nchw(without.images[:, i]), where=same)
        if i == 0:
            golden.check("out.lookup_frame", nchw(ours.lookups[:, 0]), where=same)


def drawn_objects(batch, depth, T):
    """The target's objects warped to the source, and the mask of pixels where both compositing rules agree (b, 3, h, w).

    They agree inside objects, unless a channel is black, and where no object is drawn: removed and unchanged pixels.
    """
    mask = batch.masks[:, TARGET, ..., None].astype(jnp.float32)
    objects = jnp.concatenate([batch.images[:, TARGET] * mask, mask], axis=-1)
    drawn = nchw(published_warp(objects, depth, T, batch.K, DomdConfig().upscale)[0])
    colours, share = drawn[:, :3], drawn[:, 3:]
    return colours, beyond_first(depth.shape)[:, None] & ((share == 0) | (share > 1 - 1e-5) & (colours > 0))
