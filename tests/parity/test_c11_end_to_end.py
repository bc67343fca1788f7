"""One whole training step and one inference pass against the reference trainer.

ManyDepth agrees without changes. DynamicDepth's reference inverts poses through Euler angles, pastes per colour channel, takes
dark pixels as holes and zeroes them in the target, in place; ours does not. So DOMD is compared where both composite the same
pixels, and our step gets the recorded frames and the zeroed target: everything computed from them, gradients included, agrees.
"""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nchw, nhwc
from test_c03_cost_volume import decided, without_large_costs
from test_c04_domd import drawn_objects, with_published_inverse
from test_c08_losses import loss_config, terms_as_published

from dd_jax.checkpoints import torch_names
from dd_jax.config import Config
from dd_jax.losses.consistency import reliable_pixels
from dd_jax.method import cost_volume, domd, objective, train_step
from dd_jax.method import forward as forward_module
from dd_jax.method.view_synthesis import full_size_depth, full_size_depths
from dd_jax.networks import model as networks
from dd_jax.networks.matching import MatchingEncoder
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch, Disentangled

FRAMES = (-1, 0, 1)


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
    params, batch_stats = torch_names.from_torch(state_dicts, networks.initialise(config, 0))
    depth_range = jnp.array([golden.meta["min_depth_tracker"], golden.meta["max_depth_tracker"]], jnp.float32)
    return train_step.create_state(config).replace(params=params, batch_stats=batch_stats, depth_range=depth_range)


def run_step(golden, config, monkeypatch, frozen=False):
    """(gradients, losses and statistics, terms per scale, outputs) of one step on the fixture's own images."""
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
    monkeypatch.setattr(objective, "image_pyramid", lambda image: pyramid)
    for module, name in ((train_step, "forward"), (objective, "weighted_terms")):
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
    """The fixture's matching augmentation: the recorded draws in files named ``*_aug``, otherwise none."""
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
    """Axis-angle and translation; the decoder's second pose is never used, and our network does not return it."""
    for name, ours in zip(("axisangle", "translation"), motion):
        value = np.zeros_like(golden[f"out.{name}_{frame}"])
        used = np.zeros(value.shape, bool)
        value[:, 0, 0], used[:, 0] = ours, True
        golden.check(f"out.{name}_{frame}", value, where=used)


def check_trackers(golden, depth_range):
    golden.check("out.f64.trackers_after", np.asarray(depth_range, np.float64))


def check_losses(golden, losses, *networks):
    """Terms per scale, summed over the trained networks."""
    for scale in range(4):
        golden.check(f"out.losses.reproj_loss_{scale}", sum(terms["photometric"][scale] for terms in networks))
        golden.check(f"out.losses.consistency_loss_{scale}", networks[-1]["consistency"][scale])
        golden.check(f"out.losses.loss_{scale}", sum(term[scale] for terms in networks for term in terms.values()))
    golden.check("out.losses.loss", losses["total"])


def terms_of_networks(seen):
    """The terms of teacher (unless frozen) and student, without the network's name in front."""
    found = {}
    for name, value in seen["weighted_terms"].items():
        network, _, term = name.partition("/")
        found.setdefault(network, {})[term] = value
    return [found[network] for network in ("teacher", "student") if network in found]


def check_gradients(golden, grads, batch_stats):
    gradient = flat_torch((grads, batch_stats))
    keys = golden.meta["grad_keys"]
    golden.check("out.grad_norm", np.array([np.linalg.norm(gradient[key]) for key in keys], np.float32))
    golden.check("out.grad_proj", np.array([projection(golden, key, gradient[key]) for key in keys], np.float32))
    for name in golden.names("out.grad.*"):
        golden.check(name, gradient[name.removeprefix("out.grad.")])


def check_second_motions(golden, config, state, batch, batch_stats, frozen=False):
    """The reference runs the pose network on (t-1, t) again, for the matching pose; this changes only its batch statistics."""
    model = networks.merge(state.params, batch_stats, config, None, train=True, frozen=frozen)
    check_motions(golden, -1, model.pose(batch.inputs[:, PREVIOUS], batch.inputs[:, TARGET]))
    statistics = flat_torch((state.params, networks.split(model)[1]))
    norms = [np.linalg.norm(statistics[key]) for key in golden.meta["stat_keys"]]
    golden.check("out.stat_norm", np.array(norms, np.float32))
    check_motions(golden, 1, model.pose(batch.inputs[:, TARGET], batch.inputs[:, NEXT]))


def check_disps(golden, prefix, disps):
    for scale, disp in enumerate(disps):
        golden.check(f"out.{prefix}disp_s{scale}", np.asarray(disp)[:, None])


def projection(golden, key, gradient):
    """Projection of a gradient onto the direction that the fixture derives from the parameter's name."""
    net, name = key.split("/")
    seed = zlib.crc32(("proj." + golden.meta["weights"][net]["prefix"] + name).encode())
    return np.sum(gradient.astype(np.float64) * np.random.default_rng(seed).standard_normal(gradient.shape))


def flat_torch(trees):
    """{network/key: array} in PyTorch's layout."""
    return {f"{net}/{key}": value for net, state in torch_names.to_torch(*trees).items() for key, value in state.items()}


@pytest.mark.golden("c11_train_manydepth")
def test_many_depth_step(golden, monkeypatch):
    config = config_of(golden, many_depth=True)
    state, batch, grads, losses, batch_stats, depth_range, seen = run_step(golden, config, monkeypatch)
    outputs = seen["forward"]

    check_losses(golden, losses, *terms_of_networks(seen))
    check_disps(golden, "mono_", outputs.teacher_disps)
    check_poses(golden, outputs)
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])
    golden.check("out.augmentation_mask", np.asarray(outputs.student.augmented, np.float32)[:, None, None, None])
    golden.check("out.lookup_frames", nchw(batch.inputs[:, PREVIOUS]))
    check_student(golden, outputs, config)
    check_trackers(golden, depth_range)
    check_gradients(golden, grads, batch_stats)
    check_second_motions(golden, config, state, batch, batch_stats)


def with_recorded_frames(golden, patch, composites):
    """Our step with the reference's composites, its holes (dark pixels) and its missing costs."""
    lookups = jnp.asarray(nhwc(golden["out.lookup_frames"]))[:, None]
    build = cost_volume.build

    def disentangle(batch, frames, count, depth, T, apply_to_lookup, config):
        dark = (lookups.sum(-1) < 0.15) & apply_to_lookup[:, None, None, None]
        return Disentangled(images=composites, holes=jnp.zeros(composites.shape[:4], bool), lookups=lookups, lookup_holes=dark)

    patch.setattr(domd, "disentangle", disentangle)
    patch.setattr(cost_volume, "build", lambda *args: without_large_costs(build(*args), args[-2]))
    encode_second(patch, lookups[:, 0])  # with a static camera ours have colour jitter, the reference's do not


def encode_second(patch, lookups):
    """Replaces the lookup frames, the second images that the matching encoder gets."""
    given, calls, features = {1: lookups}, itertools.count(), MatchingEncoder.features
    patch.setattr(MatchingEncoder, "features", lambda self, image: features(self, given.get(next(calls) % 2, image)))


def with_zeroed_target(golden, patch, composites):
    """Our step with the reference's photometric errors, the teacher's first; each zeroes further pixels of the target."""
    inputs = golden.companion(golden.meta["inputs_file"])
    pyramid = tuple(jnp.asarray(nhwc(inputs[f"in.color_0_s{scale}"])) for scale in range(4))
    options, loss, synthesize = {"_clone": golden.stem.endswith("fixed")}, loss_config({}), objective.synthesize
    # The unmodified reference uses, for its teacher, the composite of the previous frame as the next frame.
    previous, following = (jnp.asarray(nhwc(inputs[f"in.color_{frame}_s0"])) for frame in (-1, 1))
    sources = jnp.stack([previous, following if options["_clone"] else composites[:, 0]], axis=1)
    seen = {}

    def views(depths, T, images, holes, K, *rest):
        seen["cameras"] = T, K
        return synthesize(depths, T, sources if holes is None else images, None, K, *rest)

    def terms(found, disps, target, images, explained=None):
        targets, exists = (target, *pyramid[1:]), jnp.ones(images.shape[:2], bool)
        images = jnp.moveaxis(images, 1, 0)
        return terms_as_published(options, loss, found.warped, disps, targets, images, exists, explained=explained)

    def weighted_terms(x, listed):
        frozen = not any(term.name.startswith("teacher/") for term in listed)
        student, disps = x.student_views, x.outputs.student.disps
        if frozen:  # a frozen teacher has no loss, but zeroes pixels of the target
            T, K = seen["cameras"]
            _, target = terms(synthesize(x.teacher_depths, T, sources, None, K), disps, pyramid[0], sources)
            teacher = {}
        else:
            teacher, target = terms(x.teacher_views, x.outputs.teacher_disps, pyramid[0], sources)
        explained = student.depths, x.teacher_depths, x.reliable
        student, _ = terms(student, disps, target, composites, explained)
        networks = {"teacher": teacher, "student": student}
        return {f"{network}/{name}": value for network, found in networks.items() for name, value in found.items()}

    patch.setattr(objective, "synthesize", views)
    patch.setattr(objective, "weighted_terms", weighted_terms)


def composites_of(golden, frames=(-1, 1)):
    """The reference's composites of the source frames (b, f, h, w, 3)."""
    return jnp.stack([jnp.asarray(nhwc(golden[f"out.color_{frame}_after"])) for frame in frames], axis=1)


def check_disentangling(golden, batch, outputs, config, static):
    """Our composites, with the reference's inverse pose, where both composite the same pixels."""
    T, apply = outputs.T_source_from_target, ~outputs.student.augmented
    depth = full_size_depth(outputs.teacher_disps[0], batch.images.shape[2:4], config.model)
    frames = (PREVIOUS, NEXT)[: T.shape[1]]
    run = with_published_inverse(lambda *args: domd.disentangle(args[0], frames, 1, *args[1:], config.domd))
    ours = jax.jit(run)(batch, depth, T, apply)
    for i, frame in enumerate((-1, 1)[: len(frames)]):
        _, same = drawn_objects(batch, depth, T[:, i])
        golden.check(f"out.color_{frame}_after", nchw(ours.images[:, i]), where=same)
        if i == 0:
            everywhere = np.asarray(outputs.student.augmented)[:, None, None, None]
            lookups = jnp.where(static[:, None, None, None], batch.images[:, TARGET], ours.lookups[:, 0])
            golden.check("out.lookup_frames", nchw(lookups), where=same | everywhere)


def check_student(golden, outputs, config):
    check_disps(golden, "", outputs.student.disps)
    volume = outputs.student.volume
    golden.check("out.cost_volume", nchw(volume.costs))
    golden.check("out.missing_mask", nchw(~volume.observed).astype(np.float32))
    same = enlarged(decided(volume))
    golden.check("out.lowest_cost", enlarged(volume.lowest), where=same)
    if golden.stem == "c11_infer":  # recorded before the comparison with the teacher
        reliable = enlarged(volume.confidence)
    else:
        depths = full_size_depths(outputs.teacher_disps, config.model)
        reliable = np.asarray(reliable_pixels(volume, depths[0]), np.float32)
    golden.check("out.consistency_mask", reliable, where=same)


def enlarged(quarter):
    """Enlarged to full size by repetition."""
    return np.asarray(quarter).repeat(4, 1).repeat(4, 2)


@pytest.mark.golden("c11_train", "c11_train_fixed", "c11_train_frozen_teacher", "c11_train_matching_aug")
def test_dynamic_depth_step(golden, monkeypatch):
    config = config_of(golden)
    frozen = golden.stem.endswith("frozen_teacher")
    set_matching_draws(golden, monkeypatch)
    static = forward_module.matching_augmentation(None, None)[0]
    with monkeypatch.context() as patch:
        composites = composites_of(golden)
        with_recorded_frames(golden, patch, composites)
        with_zeroed_target(golden, patch, composites)
        state, batch, grads, losses, batch_stats, depth_range, seen = run_step(golden, config, patch, frozen)
    outputs = seen["forward"]
    check_disps(golden, "mono_", outputs.teacher_disps)
    check_poses(golden, outputs)
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])  # recorded before the zero poses are drawn
    golden.check("out.augmentation_mask", np.asarray(outputs.student.augmented, np.float32)[:, None, None, None])
    check_trackers(golden, depth_range)
    check_disentangling(golden, batch, outputs, config, static)
    check_student(golden, outputs, config)
    check_losses(golden, losses, *terms_of_networks(seen))
    check_gradients(golden, grads, batch_stats)
    check_second_motions(golden, config, state, batch, batch_stats, frozen)
    golden.leave_out("out.color_0_after", "our loss never writes to the target (the reference does by mistake)")


@pytest.mark.golden("c11_train", "c11_train_fixed", "c11_train_frozen_teacher", "c11_train_matching_aug")
def test_dynamic_depth_step_without_replacements(golden, monkeypatch):
    """Our unmodified step on the recorded inputs and draws: everything computed before the composites agrees."""
    config, frozen = config_of(golden), golden.stem.endswith("frozen_teacher")
    set_matching_draws(golden, monkeypatch)
    _, _, grads, losses, _, depth_range, seen = run_step(golden, config, monkeypatch, frozen)
    outputs = seen["forward"]
    check_disps(golden, "mono_", outputs.teacher_disps)
    check_poses(golden, outputs)
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])
    golden.check("out.augmentation_mask", np.asarray(outputs.student.augmented, np.float32)[:, None, None, None])
    check_trackers(golden, depth_range)
    assert all(np.isfinite(value) for value in losses.values())
    for network, tree in grads.items():
        assert any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)), network
    assert all(np.any(leaf) for leaf in jax.tree.leaves(jax.tree.map(np.asarray, grads["student"]["encoder"]["reduce"])))


@pytest.mark.golden("c11_infer")
def test_inference(golden, monkeypatch):
    config = config_of(golden)
    state = state_of(golden, config)
    batch = batch_of(golden.companion(golden.meta["inputs_file"]), FRAMES[:2])

    @jax.jit
    def run(state, batch):
        model = networks.merge(state.params, state.batch_stats, config, None, train=False)
        return forward_module.forward(model, batch, state.depth_range, config, train=False), model.pose(
            batch.inputs[:, PREVIOUS], batch.inputs[:, TARGET]
        )

    with monkeypatch.context() as patch:
        with_recorded_frames(golden, patch, composites_of(golden, (-1,)))
        outputs, motion = run(state, batch)
    check_disps(golden, "mono_", outputs.teacher_disps)
    golden.check("out.cam_T_cam_-1", outputs.T_source_from_target[:, 0])
    golden.check("out.relative_pose_-1", outputs.T_source_from_target[:, 0])
    check_motions(golden, -1, motion)
    golden.check("out.augmentation_mask", np.zeros_like(golden["out.augmentation_mask"]))
    check_trackers(golden, state.depth_range)
    check_disentangling(golden, batch, outputs, config, jnp.zeros(len(batch.seed), bool))
    check_student(golden, outputs, config)


@pytest.mark.golden("c11_batch")
def test_input_file_has_no_outputs(golden):
    assert golden.names("out.*") == [] and golden.names("in.*")
