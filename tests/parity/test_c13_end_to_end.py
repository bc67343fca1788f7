"""DS-Depth's training step and inference against the published trainer.

Its flow network's input carries gradients and is sampled up to a pixel off, the convolution of the volumes is not masked, and
flows are resized with align_corners=True: with these replacements our step agrees completely, gradients included.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nchw, nhwc
from test_c03_cost_volume import decided
from test_c11_end_to_end import (
    batch_of,
    check_disps,
    check_gradients,
    check_poses,
    check_trackers,
    config_of,
    encode_second,
    enlarged,
    flat_torch,
    set_matching_draws,
    state_of,
)
from test_c13_ds_depth import (
    FRAMES,
    SCALES,
    as_logged,
    losses_of,
    resize_align_corners,
    sample_up_to_a_pixel_off,
    used_and_decided,
    with_unmasked_convolution,
)

from dd_jax.config import LossConfig
from dd_jax.geometry.camera import disp_to_depth
from dd_jax.losses.consistency import reliable_pixels
from dd_jax.method import ds_depth, train_step
from dd_jax.method import forward as forward_module
from dd_jax.method.cost_volume import update_depth_range
from dd_jax.networks import model as networks
from dd_jax.networks.matching import MatchingEncoder

TEACHER_AND_POSE = "mono_encoder", "mono_depth", "pose_encoder", "pose"


def system_of(golden, frames):
    """(config, state, batch) of an end-to-end file."""
    config = config_of(golden, many_depth=True)
    config.ds.enabled, config.ds.own_mask = True, False
    return config, state_of(golden, config), batch_of(golden.companion(golden.meta["inputs_file"]), frames)


def as_published(patch, lookups=None):
    """Our forward pass with the reference's sampling, resizing and unmasked convolution, and gradients through the flow network's
    input. ``lookups`` replaces the lookup frames."""

    def full_size_flow(flow, size):
        half = jnp.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
        return jnp.moveaxis(resize_align_corners(jnp.moveaxis(flow, -1, -3), size), -3, -1) * half

    build, fuse = ds_depth.build_cost_volume, MatchingEncoder.fuse
    patch.setattr(ds_depth, "sample_border", sample_up_to_a_pixel_off)
    patch.setattr(forward_module, "full_size_flow", full_size_flow)
    patch.setattr(MatchingEncoder, "fuse", lambda self, f0, f1, volume: fuse(self, f0, f1, with_unmasked_convolution(volume)))
    for module in (forward_module, ds_depth):
        patch.setattr(module, "sg", lambda x: x)
    patch.setattr(ds_depth, "build_cost_volume", lambda *args: jax.tree.map(jax.lax.stop_gradient, build(*args)))
    if lookups is not None:
        encode_second(patch, lookups)


@pytest.mark.golden("c13_ds_train", "c13_ds_train_aug", "c13_ds_train_frozen")
def test_training_step(golden, monkeypatch):
    frozen = golden.stem.endswith("frozen")
    config, state, batch = system_of(golden, (-1, 0, 1))
    inputs = golden.companion(golden.meta["inputs_file"])
    pyramid = tuple(jnp.asarray(nhwc(inputs[f"in.color_0_s{s}"])) for s in SCALES)
    _, terms = losses_of(pyramid, jnp.stack([batch.images[:, 0], batch.images[:, 2]]), batch.K)
    loss = LossConfig(occlusion_rule="switch")
    set_matching_draws(golden, monkeypatch)
    static = forward_module.matching_augmentation(None, None)[0]
    # With a static camera our lookup frames have colour jitter, the reference's do not.
    lookups = jnp.where(static[:, None, None, None], batch.images[:, 1], batch.inputs[:, 0])

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params, weights):
        """Gradient of the weighted losses of (student, teacher), and the quantities they are computed from."""
        model = networks.merge(params, state.batch_stats, config, None, train=True, frozen=frozen)
        outputs = forward_module.forward(model, batch, state.depth_range, config, train=True)
        depth = disp_to_depth(outputs.teacher_disps[0], 0.1, 100.0)
        reliable = reliable_pixels(outputs.student.volume, depth)
        predicted = {
            "mono_disp": outputs.teacher_disps,
            "disp": outputs.student.disps,
            "cam_T_cam": (outputs.T_source_from_target[:, 0], outputs.T_source_from_target[:, 1]),
            "resflow": tuple(jnp.moveaxis(flow, (1, -1), (0, 2)) for flow in outputs.student.residuals),
        }
        trusted = reliable & ~outputs.student.augmented[:, None, None]
        parts = {multi: as_logged(terms(predicted, multi, loss, trusted)) for multi in (True, False)}
        losses = jnp.stack([jnp.mean(parts[multi]["loss"]) for multi in (True, False)])
        model.pose(batch.inputs[:, 0], batch.inputs[:, 1])
        return jnp.dot(weights, losses), (outputs, depth, reliable, parts, networks.split(model)[1])

    with monkeypatch.context() as patch:
        as_published(patch, lookups)
        weights = jnp.array([1.0, 0.0 if frozen else 1.0])
        grads, (outputs, depth, reliable, parts, batch_stats) = run(state.params, weights)
    check_disps(golden, "mono_", outputs.teacher_disps)
    check_poses(golden, outputs)
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])
    depth_range = state.depth_range
    if not frozen:
        depth_range = update_depth_range(depth_range, depth, config.cost_volume, config.model.min_depth, None)
    check_trackers(golden, depth_range)
    golden.check("out.augmentation_mask", np.asarray(outputs.student.augmented, np.float32)[:, None, None, None])
    for scale, flow in enumerate(outputs.student.residuals):
        for i, frame in enumerate(FRAMES):
            golden.check(f"out.resflow_{frame}_s{scale}", jnp.moveaxis(flow[:, i], -1, 1))
    volume = outputs.student.volume
    for name, part in zip(("static", "dynamic"), jnp.split(volume.static_and_dynamic, 2, axis=-1), strict=True):
        golden.check(f"out.cost_volume_{name}", nchw(part))
    golden.check("out.lowest_cost", enlarged(volume.lowest), where=enlarged(used_and_decided(volume)))
    golden.check("out.consistency_mask", np.asarray(reliable, np.float32), where=enlarged(decided(volume)))
    check_disps(golden, "", outputs.student.disps)

    learning = [True] if frozen else [True, False]
    for name in ("reproj_loss", "consistency_loss", "smooth_flow_loss", "loss"):
        for scale in SCALES:
            value = sum(parts[multi][name][scale] for multi in learning if name in parts[multi])
            golden.check(f"out.losses.{name}_{scale}", value)
    losses = {multi: jnp.mean(part["loss"]) for multi, part in parts.items()}
    golden.check("out.losses.student_loss", losses[True])
    golden.check("out.losses.teacher_loss", losses[False])
    golden.check("out.losses.loss", sum(losses[multi] for multi in learning))
    check_gradients(golden, grads, batch_stats)
    if "out.student_to_teacher_pose_grad_norm" in golden:
        gradient = flat_torch((run(state.params, jnp.array([1.0, 0.0]))[0], batch_stats))
        of_network = {net: [key for key in golden.meta["grad_keys"] if key.startswith(f"{net}/")] for net in TEACHER_AND_POSE}
        norms = [np.linalg.norm([np.linalg.norm(gradient[key]) for key in keys]) for keys in of_network.values()]
        golden.check("out.student_to_teacher_pose_grad_norm", np.array(norms, np.float32))
    statistics = flat_torch((state.params, batch_stats))
    norms = [np.linalg.norm(statistics[key]) for key in golden.meta["stat_keys"]]
    golden.check("out.stat_norm", np.array(norms, np.float32))


@pytest.mark.golden("c13_ds_train", "c13_ds_train_aug", "c13_ds_train_frozen")
def test_training_step_without_replacements(golden, monkeypatch):
    """Our unmodified step on the recorded inputs and draws: everything independent of the flow network's input agrees."""
    frozen = golden.stem.endswith("frozen")
    config, state, batch = system_of(golden, (-1, 0, 1))
    monkeypatch.setattr(train_step, "augment", lambda batch, config, train: batch)
    set_matching_draws(golden, monkeypatch)
    forward, seen = train_step.forward, {}

    def record(*args, **kwargs):
        seen["outputs"] = forward(*args, **kwargs)
        return seen["outputs"]

    monkeypatch.setattr(train_step, "forward", record)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(trainable):
        value, (losses, _, depth_range) = train_step.loss_fn(trainable, state, batch, config, None, frozen)
        return value, (losses, depth_range, seen["outputs"])

    trainable = {name: tree for name, tree in state.params.items() if name == "student" or not frozen}
    grads, (losses, depth_range, outputs) = run(trainable)
    check_disps(golden, "mono_", outputs.teacher_disps)
    check_poses(golden, outputs)
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])
    golden.check("out.augmentation_mask", np.asarray(outputs.student.augmented, np.float32)[:, None, None, None])
    check_trackers(golden, depth_range)
    assert all(np.isfinite(value) for value in losses.values())
    for network, tree in grads.items():
        assert any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)), network


@pytest.mark.golden("c13_ds_infer")
def test_inference(golden, monkeypatch):
    config, state, batch = system_of(golden, (-1, 0))
    batch = batch.replace(inputs=batch.images)  # not augmented

    @jax.jit
    def run(state, batch):
        model = networks.merge(state.params, state.batch_stats, config, None, train=False)
        return forward_module.forward(model, batch, state.depth_range, config, train=False)

    with monkeypatch.context() as patch:
        as_published(patch)
        outputs = run(state, batch)
    golden.check("out.mono_disp_s0", outputs.teacher_disps[0][:, None])
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])
    golden.check("out.as_training.resflow_s0", jnp.moveaxis(outputs.student.residuals[0][:, 0], -1, 1))
    volume = outputs.student.volume
    golden.check("out.as_training.lowest_cost", volume.lowest, where=used_and_decided(volume))
    golden.check("out.as_training.confidence_mask", volume.confidence)
    golden.check("out.as_training.disp_s0", outputs.student.disps[0][:, None])
    golden.leave_out("out.script.*", "the evaluation script's input differs from that of training; ours is the same in both")


@pytest.mark.golden("c13_ds_batch")
def test_input_file_has_no_outputs(golden):
    assert golden.names("out.*") == [] and golden.names("in.*")
