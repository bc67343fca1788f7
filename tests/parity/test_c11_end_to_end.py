"""One whole training step and one inference pass against the reference trainer.

ManyDepth's settings agree in full. DynamicDepth's reference detects holes by darkness, pastes per colour channel and inverts
poses through Euler angles; ours does not, so from the disentangled frames on the student's numbers are its own.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nchw, nhwc

from dd_jax import forward as forward_module
from dd_jax import train_step
from dd_jax.config import Config
from dd_jax.losses import total
from dd_jax.networks import model as networks
from dd_jax.networks import pretrained
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch

FRAMES = (-1, 0, 1)
OWN = "the student sees frames disentangled by the corrected rules (explicit holes, masked paste, exact inverse)"


def config_of(golden, many_depth=False):
    config = Config()
    config.cost_volume.bins = golden.meta["num_depth_bins"]
    config.loss.smoothness = 2e-3
    config.loss.automask_noise = 0.0
    config.cost_volume.static_probability = config.cost_volume.zero_pose_probability = 0.0
    if many_depth:
        config.domd.enabled = False
        config.cost_volume.occlusion = "none"
        config.cost_volume.aggregate = "mean"
        config.loss.occlusion_rule = "min"
    return config


def batch_of(inputs, frames=FRAMES):
    def stack(name):
        return np.stack([nhwc(inputs[f"in.{name}_{frame}_s0"]) for frame in frames], axis=1)

    images = stack("color")
    masks = np.zeros(images.shape[:4], bool)
    if "in.doj_mask" in inputs:
        names = {-1: "in.doj_mask-1", 0: "in.doj_mask", 1: "in.doj_mask+1"}
        masks = np.stack([inputs[names[frame]][:, 0] > 0.5 for frame in frames], axis=1)
    return Batch(
        images=jnp.asarray(images),
        inputs=jnp.asarray(stack("color_aug")),
        masks=jnp.asarray(masks),
        K=jnp.asarray(inputs["in.K_s0"][:, :3, :3]),
        exists=jnp.ones(images.shape[:2], bool),
        seed=jnp.arange(len(images), dtype=jnp.uint32),
    )


def state_of(golden, config):
    state_dicts = {net: golden.weights(net) for net in golden.meta["weights"]}
    params, batch_stats = pretrained.from_torch(state_dicts, networks.initialise(config, 0))
    depth_range = jnp.array([golden.meta["min_depth_tracker"], golden.meta["max_depth_tracker"]], jnp.float32)
    return train_step.create_state(config).replace(params=params, batch_stats=batch_stats, depth_range=depth_range)


def run_step(golden, config, monkeypatch, frozen=False):
    """(gradients, losses and statistics, terms per scale, outputs) of one step on the fixture's own pictures."""
    inputs = golden.companion(golden.meta["inputs_file"])
    pyramid = tuple(jnp.asarray(nhwc(inputs[f"in.color_0_s{scale}"])) for scale in range(4))
    recorded = {}

    def record(module, name):
        original = getattr(module, name)

        def recorder(*args, **kwargs):
            recorded[name] = original(*args, **kwargs)
            return recorded[name]

        monkeypatch.setattr(module, name, recorder)

    monkeypatch.setattr(train_step, "augment", lambda batch, config, train: batch)
    monkeypatch.setattr(total, "image_pyramid", lambda image: pyramid)
    for module, name in ((train_step, "forward"), (total, "teacher_terms"), (total, "student_terms")):
        record(module, name)

    def run(state, batch):
        recorded.clear()
        trainable = {name: tree for name, tree in state.params.items() if name == "student" or not frozen}

        def loss(trainable):
            value, aux = train_step.loss_fn(trainable, state, batch, config, None, frozen)
            return value, (aux, dict(recorded))

        return jax.grad(loss, has_aux=True)(trainable)

    state, batch = state_of(golden, config), batch_of(inputs)
    grads, ((losses, batch_stats, depth_range), seen) = jax.jit(run)(state, batch)
    return state, batch, grads, losses, batch_stats, depth_range, seen


def set_matching_draws(golden, monkeypatch):
    """The matching augmentation of the fixture: of the recorded draws in the files named so, else none."""
    samples = golden["out.augmentation_mask"].shape[0]
    draws = jnp.resize(jnp.array([0.1, 0.3, 0.9]) if golden.stem.endswith("_aug") else jnp.ones(1), samples)
    monkeypatch.setattr(
        forward_module, "matching_augmentation", lambda seed, config: (draws < 0.25, (draws >= 0.25) & (draws < 0.5))
    )


def check_poses(golden, outputs):
    for index, name in enumerate(("cam_T_cam_-1", "cam_T_cam_1")):
        if f"out.{name}" in golden:
            golden.check(f"out.{name}", outputs.T_source_from_target[:, index])


def check_motions(golden, frame, motion):
    """Axis-angle and translation; the decoder's second motion is never used, and not part of our network's output."""
    for name, ours in zip(("axisangle", "translation"), motion):
        value = np.zeros_like(golden[f"out.{name}_{frame}"])
        used = np.zeros(value.shape, bool)
        value[:, 0, 0], used[:, 0] = ours, True
        golden.check(f"out.{name}_{frame}", value, where=used)


def check_trackers(golden, depth_range):
    golden.check("out.f64.trackers_after", np.asarray(depth_range, np.float64))


def check_disps(golden, prefix, disps):
    for scale, disp in enumerate(disps):
        golden.check(f"out.{prefix}disp_s{scale}", np.asarray(disp)[:, None])


def projection(golden, key, gradient):
    """Of a gradient onto the direction the fixture derives from the parameter's name."""
    net, name = key.split("/")
    seed = zlib.crc32(("proj." + golden.meta["weights"][net]["prefix"] + name).encode())
    return np.sum(gradient.astype(np.float64) * np.random.default_rng(seed).standard_normal(gradient.shape))


def flat_torch(trees):
    """{network/key: array} in PyTorch's layout."""
    return {f"{net}/{key}": value for net, state in pretrained.to_torch(*trees).items() for key, value in state.items()}


@pytest.mark.golden("c11_train_manydepth")
def test_many_depth_step_agrees_in_full(golden, monkeypatch):
    config = config_of(golden, many_depth=True)
    state, batch, grads, losses, batch_stats, depth_range, seen = run_step(golden, config, monkeypatch)
    outputs, teacher, student = seen["forward"], seen["teacher_terms"], seen["student_terms"]

    for scale in range(4):
        photometric = teacher["photometric"][scale] + student["photometric"][scale]
        golden.check(f"out.losses.reproj_loss_{scale}", photometric)
        golden.check(f"out.losses.consistency_loss_{scale}", student["consistency"][scale])
        golden.check(f"out.losses.loss_{scale}", sum(terms[name][scale] for terms in (teacher, student) for name in terms))
    golden.check("out.losses.loss", losses["total"])

    check_disps(golden, "", outputs.student.disps)
    check_disps(golden, "mono_", outputs.teacher_disps)
    check_poses(golden, outputs)
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])
    golden.check("out.augmentation_mask", np.asarray(outputs.student.augmented, np.float32)[:, None, None, None])
    golden.check("out.lookup_frames", nchw(batch.inputs[:, PREVIOUS]))
    volume = outputs.student.volume
    golden.check("out.cost_volume", nchw(volume.costs))
    golden.check("out.missing_mask", nchw(~volume.observed).astype(np.float32))
    golden.check("out.lowest_cost", np.asarray(volume.lowest).repeat(4, 1).repeat(4, 2))
    depths = forward_module.full_size_depths(outputs.teacher_disps, config.model)
    golden.check("out.consistency_mask", np.asarray(total.reliable_pixels(volume, depths[0]), np.float32))
    check_trackers(golden, depth_range)

    gradient = flat_torch((grads, batch_stats))
    keys = golden.meta["grad_keys"]
    golden.check("out.grad_norm", np.array([np.linalg.norm(gradient[key]) for key in keys], np.float32))
    golden.check("out.grad_proj", np.array([projection(golden, key, gradient[key]) for key in keys], np.float32))
    for name in golden.names("out.grad.*"):
        golden.check(name, gradient[name.removeprefix("out.grad.")])

    # The reference runs the pose network on (t-1, t) once more, for the matching pose; only its statistics notice.
    model = networks.merge(state.params, batch_stats, config, None, train=True)
    check_motions(golden, -1, model.pose(batch.inputs[:, PREVIOUS], batch.inputs[:, TARGET]))
    statistics = flat_torch((state.params, networks.split(model)[1]))
    norms = [np.linalg.norm(statistics[key]) for key in golden.meta["stat_keys"]]
    golden.check("out.stat_norm", np.array(norms, np.float32))
    check_motions(golden, 1, model.pose(batch.inputs[:, TARGET], batch.inputs[:, NEXT]))


@pytest.mark.golden("c11_train", "c11_train_fixed", "c11_train_frozen_teacher", "c11_train_matching_aug")
def test_dynamic_depth_step_agrees_up_to_disentangling(golden, monkeypatch):
    config = config_of(golden)
    frozen = golden.stem.endswith("frozen_teacher")
    set_matching_draws(golden, monkeypatch)
    _, _, _, _, _, depth_range, seen = run_step(golden, config, monkeypatch, frozen)
    outputs = seen["forward"]
    check_disps(golden, "mono_", outputs.teacher_disps)
    check_poses(golden, outputs)
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])  # recorded before the zero poses are drawn
    golden.check("out.augmentation_mask", np.asarray(outputs.student.augmented, np.float32)[:, None, None, None])
    check_trackers(golden, depth_range)
    for pattern in ("losses.*", "disp_s*", "lowest_cost", "consistency_mask", "cost_volume", "missing_mask", "lookup_frames"):
        golden.leave_out(f"out.{pattern}", OWN)
    for pattern in ("color_*_after", "grad_norm", "grad_proj", "grad.*", "stat_norm"):
        golden.leave_out(f"out.{pattern}", OWN)
    for pattern in ("axisangle_*", "translation_*"):
        golden.leave_out(f"out.{pattern}", "same as in c11_train_manydepth; cam_T_cam is their result")


@pytest.mark.golden("c11_infer")
def test_inference_agrees_up_to_disentangling(golden):
    config = config_of(golden)
    state = state_of(golden, config)
    batch = batch_of(golden.companion(golden.meta["inputs_file"]), FRAMES[:2])

    @jax.jit
    def run(state, batch):
        model = networks.merge(state.params, state.batch_stats, config, None, train=False)
        return forward_module.forward(model, batch, state.depth_range, config, train=False), model.pose(
            batch.inputs[:, PREVIOUS], batch.inputs[:, TARGET]
        )

    outputs, motion = run(state, batch)
    check_disps(golden, "mono_", outputs.teacher_disps)
    golden.check("out.cam_T_cam_-1", outputs.T_source_from_target[:, 0])
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])
    check_motions(golden, -1, motion)
    golden.check("out.augmentation_mask", np.zeros_like(golden["out.augmentation_mask"]))
    check_trackers(golden, state.depth_range)
    for pattern in ("disp_s*", "lowest_cost", "consistency_mask", "cost_volume", "missing_mask"):
        golden.leave_out(f"out.{pattern}", OWN)
    for pattern in ("lookup_frames", "color_*_after"):
        golden.leave_out(f"out.{pattern}", OWN)


@pytest.mark.golden("c11_batch")
def test_inputs_hold_no_outputs(golden):
    assert golden.names("out.*") == [] and golden.names("in.*")
