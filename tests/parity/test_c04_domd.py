"""Forward warp and compositing against DynamicDepth.

Two things differ by design. The reference truncates coordinates toward zero, so that points just left of or above the image
land in its first column and row: those are not compared. And it inverts the pose through mismatched Euler angles (J6): its
picture is compared where the fixture holds the exact inverse as well.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nchw, nhwc

from dd_jax import domd
from dd_jax.config import DomdConfig
from dd_jax.geometry import splat
from dd_jax.types import Batch

forward_warp = jax.jit(splat.forward_warp, static_argnums=4)
EULER = "inverse pose through mismatched Euler angles (J6)"


def pose(rows):
    return jnp.concatenate([rows, np.tile(np.float32([[[0, 0, 0, 1]]]), (len(rows), 1, 1))], axis=1)


def beyond_first(shape):
    mask = np.zeros(shape, bool)
    mask[..., 1:, 1:] = True
    return mask


@pytest.mark.golden("c04_forward_warp")
def test_forward_warp_parity(golden):
    depth, K, image = (jnp.asarray(x) for x in (golden["in.depth"][:, 0], golden["in.K"], nhwc(golden["in.masked_image"])))
    inner = beyond_first(depth.shape)
    for case in sorted({name.split(".")[2] for name in golden.names("in.pose.*")}):
        T = pose(golden[f"in.pose.{case}"])
        warped, near, valid = forward_warp(image, depth, T, K, 3)
        golden.check(f"out.{case}.exact_inverse.img_w", nchw(warped), where=inner[:, None])
        golden.check(f"out.{case}.exact_inverse.valid", np.asarray(valid, np.float32)[:, None], where=inner[:, None])
        golden.check(f"out.{case}.depth_splat", splat.splat_depth(depth, T, K, 3)[0], where=inner)
        for prefix, upscale in ((f"out.{case}", 3), (f"out.{case}.up1", 1), (f"out.{case}.up2", 2)):
            if f"{prefix}.depth_w" in golden:
                near = np.asarray(forward_warp(image, depth, T, K, upscale)[1])[:, None]
                both = inner[:, None] & (near > 0) & (golden[f"{prefix}.depth_w"] > 0)  # validity depends on the inverse
                assert both.mean() > 0.2
                golden.check(f"{prefix}.depth_w", near, where=both)
        for name in ("img_w", "valid", "pose_vec_inv", "rot_used", "full.*", "up1.img_w", "up2.img_w"):
            if golden.names(f"out.{case}.{name}"):
                golden.leave_out(f"out.{case}.{name}", EULER)


@pytest.mark.golden("c04_forward_warp_stages")
def test_forward_warp_stages_parity(golden):
    depth, K, image = (jnp.asarray(x) for x in (golden["in.depth"][:, 0], golden["in.K"], nhwc(golden["in.masked_image"])))
    inner = beyond_first(depth.shape)
    for case in sorted({name.split(".")[2] for name in golden.names("in.pose.*")}):
        T = pose(golden[f"in.pose.{case}"])
        u, v, z = splat.splat_points(depth, T, K, 3)
        golden.check(f"out.{case}.pcoords", np.stack([u, v], axis=-1))
        golden.check(f"out.{case}.Z", z[:, None])
        golden.check(f"out.{case}.depth_splat", splat.splat_depth(depth, T, K, 3)[0], where=inner)
        near = np.asarray(forward_warp(image, depth, T, K, 3)[1])[:, None]
        golden.check(f"out.{case}.depth_w", near, where=inner[:, None] & (near > 0) & (golden[f"out.{case}.depth_w"] > 0))
        for name in ("img_inverse_warped", "inverse_warp_valid", "img_w", "valid"):
            golden.leave_out(f"out.{case}.{name}", EULER)


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
        return jax.jit(lambda *args: domd.disentangle(args[0], (0, 2), 1, *args[1:], config))(
            batch, depth, T, np.ones(count, bool)
        )

    ours, without = disentangle(DomdConfig()), disentangle(DomdConfig(exclude_from_loss=True))
    for i, name in enumerate(("color_-1", "color_1")):
        drawn = np.asarray(ours.images[:, i] != without.images[:, i]).any(-1)[:, None]
        their = golden[f"out.img_w_{name[6:]}"].max(axis=1, keepdims=True) > 0
        assert (drawn & their).sum() > 0.8 * (drawn | their).sum()
        # Where both draw, a different inverse pose and mask-weighted colours; compared are the removed and untouched pixels.
        same = ~drawn & ~their
        golden.check(f"out.{name}", nchw(ours.images[:, i]), where=same)
        golden.check(f"out.no_reproj_doj.{name}", nchw(without.images[:, i]), where=same)
        golden.leave_out(f"out.img_w_{name[6:]}", EULER)
        if i == 0:
            golden.check("out.lookup_frame", nchw(ours.lookups[:, 0]), where=same)
