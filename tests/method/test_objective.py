import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from loss_inputs import loss_inputs

from dd_jax.config import Config, DomdConfig, LossConfig
from dd_jax.geometry.sampling import reduce_image
from dd_jax.losses import photometric, ssim
from dd_jax.method import objective
from dd_jax.method.objective import LossInputs
from dd_jax.method.view_synthesis import full_size_depth
from dd_jax.networks.layers import Draws
from dd_jax.networks.model import Networks
from dd_jax.types import Batch, CostVolume, Outputs, StudentOutputs, Views

B, H, W = 4, 16, 32


def uniform(seed, *shape, low=0.0, high=1.0):
    return jnp.asarray(np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32))


@pytest.fixture(scope="module")
def case():
    """(outputs, teacher views, student views, teacher depths, batch, noise) of a random step."""
    disps = tuple(uniform(s, B, H >> s, W >> s, low=0.1, high=0.9) for s in range(4))
    volume = CostVolume(
        costs=uniform(10, B, H // 4, W // 4, 2),
        observed=jnp.ones((B, H // 4, W // 4, 2), bool),
        confidence=(uniform(11, B, H // 4, W // 4) < 0.8).astype(jnp.float32),
        lowest=uniform(12, B, H // 4, W // 4, low=0.1, high=0.4),
    )
    student = StudentOutputs(disps=tuple(d**2 for d in disps), volume=volume, augmented=jnp.arange(B) == 1, disentangled=None)
    outputs = Outputs(T_source_from_target=jnp.zeros((B, 2, 4, 4)), teacher_disps=disps, student=student)
    depths = uniform(13, 4, B, H, W, low=2.0, high=8.0)
    teacher = Views(depths=depths, warped=uniform(14, 4, 2, B, H, W, 3), holes=None)
    holes = uniform(17, 4, 2, B, H, W) < 0.2
    warped = jnp.where(holes[..., None], 0, uniform(16, 4, 2, B, H, W, 3))
    students = Views(depths=uniform(15, 4, B, H, W, low=2.0, high=8.0), warped=warped, holes=holes)
    batch = Batch(
        images=uniform(18, B, 3, H, W, 3),
        masks=jnp.zeros((B, 3, H, W), bool),
        K=jnp.zeros((B, 3, 3)),
        exists=jnp.ones((B, 3), bool),
        seed=jnp.zeros(B, jnp.uint32),
    )
    return outputs, teacher, students, depths, batch, 1e-5 * uniform(19, B, H, W)


def compute_losses(outputs, teacher_views, student_views, teacher_depths, batch, noise, config, axis):
    """Losses of given views; without teacher views, the teacher is frozen."""
    known = {"outputs": outputs, "batch": batch, "teacher_views": teacher_views, "student_views": student_views}
    config.model.student = student_views is not None
    inputs = loss_inputs(config, axis, model=None, teacher_depths=teacher_depths, **known)
    terms = objective.loss_terms(config, frozen=teacher_views is None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "tie_break_noise", lambda *_: noise)
        return objective.compute_losses(inputs, terms)


@functools.cache
def no_model():
    """Networks without arrays: the outputs are given."""
    return nnx.eval_shape(lambda: Networks(tiny.config(), Draws()))


def moving_camera(case, forward=0.0):
    """(outputs, batch) of ``case`` with sensible intrinsics and a camera that moves ``forward`` between frames."""
    outputs, _, _, _, batch, _ = case
    K = jnp.array([[20.0, 0, 15.5], [0, 20.0, 7.5], [0, 0, 1]])
    T = jnp.tile(jnp.eye(4), (B, 2, 1, 1)).at[:, :, 2, 3].set(jnp.array([forward, -forward]))
    return outputs.replace(T_source_from_target=T), batch.replace(K=jnp.tile(K, (B, 1, 1)), inputs=batch.images)


def loss_values(function, outputs, batch, **changes):
    config = Config(loss=LossConfig(**changes))
    return np.asarray(jax.jit(lambda o, b: function(LossInputs(no_model(), o, b, config, None)))(outputs, batch))


PHOTOMETRIC = [objective.teacher_photometric, objective.student_photometric, objective.student_consistency]


@pytest.mark.parametrize("term", PHOTOMETRIC)
def test_pyramid_of_one_scale_is_the_full_size(case, term):
    outputs, batch = moving_camera(case, 0.1)
    function = objective.per_level(term)
    full, pyramid = (loss_values(function, outputs, batch, scales=1, pyramid=on, motion_mask=False) for on in (False, True))
    assert full.shape == (1,) and full > 0
    np.testing.assert_array_equal(pyramid, full)


def test_every_level_of_the_pyramid_compares_images_of_its_size(case):
    """A camera at rest: each level is the photometric error of reduced images."""
    outputs, batch = moving_camera(case)
    found = loss_values(
        objective.per_level(objective.teacher_photometric), outputs, batch, pyramid=True, automask=False, scales=3
    )
    for scale in range(3):
        small = reduce_image(batch.images, scale)
        target = ssim.reference(small[:, 1])
        errors = [photometric.photometric_error(small[:, f], target, 0.85) for f in (0, 2)]
        np.testing.assert_allclose(found[scale], jnp.minimum(*errors).mean(), rtol=1e-4)


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_number_of_trained_scales(case, scales):
    outputs, batch = moving_camera(case, 0.1)
    config = Config(loss=LossConfig(scales=scales))

    def total(disps, student):
        changed = outputs.replace(teacher_disps=disps, student=outputs.student.replace(disps=student))
        return objective.compute_losses(
            LossInputs(no_model(), changed, batch, config, None), objective.loss_terms(config, False)
        )["total"]

    for gradients in jax.jit(jax.grad(total, (0, 1)))(outputs.teacher_disps, outputs.student.disps):
        assert [bool(g.any()) for g in gradients] == [True] * scales + [False] * (4 - scales)


def test_slow_samples_without_auto_mask(case):
    """Equal frames, so that the auto-mask leaves nothing; samples 0 and 1 are predicted to move less than the limit."""
    outputs, batch = moving_camera(case)
    T = outputs.T_source_from_target.at[:, :, 2, 3].set(jnp.array([[0.0], [0.02], [0.2], [0.3]]))
    batch = batch.replace(images=jnp.stack([batch.images[:, 1]] * 3, axis=1))
    depth = full_size_depth(outputs.teacher_disps[0], (H, W), Config().model)
    np.testing.assert_allclose(objective.parallax(T, depth), T[:, 0, 2, 3] * (1 / depth).mean((1, 2)), rtol=1e-5)
    limit = float(0.1 * (1 / depth).mean((1, 2)).min())
    config = Config(loss=LossConfig(automask_parallax=limit))
    inputs = LossInputs(no_model(), outputs.replace(T_source_from_target=T), batch, config, None)
    share = np.asarray(inputs.teacher_errors[1]).mean((0, 2, 3))
    assert share[0] == share[1] == 1 and max(share[2:]) < 0.1


def test_student_follows_the_ground_on_objects(case):
    """Every sample is augmented, so that the student follows its guide everywhere."""
    outputs, batch = moving_camera(case, 0.1)
    batch = batch.replace(masks=batch.masks.at[:, 1, 4:10, 8:20].set(True))
    outputs = outputs.replace(student=outputs.student.replace(augmented=jnp.ones(B, bool)))

    def guide(depth, pyramid):
        config = Config(domd=DomdConfig(depth=depth), loss=LossConfig(pyramid=pyramid))
        inputs = LossInputs(no_model(), outputs, batch, config, None)
        return [(np.asarray(level.guide_depths), np.asarray(level.teacher_depths)) for level in inputs.levels[:2]]

    for pyramid in (False, True):
        for found, teacher in guide("teacher", pyramid):
            np.testing.assert_array_equal(found, teacher)
        for size, (found, teacher) in zip((1, 2), guide("ground", pyramid)):
            top, bottom, left, right = (x // size for x in (4, 10, 8, 20))
            inside = found[..., top:bottom, left:right]
            np.testing.assert_array_equal(inside, np.broadcast_to(teacher[..., bottom : bottom + 1, left:right], inside.shape))
            assert (found != teacher).mean() < 0.2


@functools.cache
def compiled(**changes):
    return jax.jit(lambda *case: compute_losses(*case, Config(loss=LossConfig(**changes)), None))


def compute(case, **changes):
    """All losses with some fields of the loss config changed."""
    return compiled(**changes)(*case)


def test_terms_and_their_sum(case):
    losses = compute(case)
    terms = {
        "teacher/photometric", "teacher/smoothness", "student/photometric", "student/consistency", "student/smoothness",
    }  # fmt: skip
    assert losses.keys() == terms | {"total"}
    assert all(value.shape == () and 0 < value < 10 for value in losses.values())
    np.testing.assert_allclose(losses["total"], sum(losses[name] for name in terms), rtol=1e-6)


def test_disabled_terms_are_absent(case):
    outputs, teacher, students, depths, batch, noise = case
    silent = {"smoothness": 0.0, "consistency": 0.0, "ssim": 0.0}
    assert compute(case, **silent).keys() == {"teacher/photometric", "student/photometric", "total"}
    single = compute((outputs.replace(student=None), teacher, None, None, batch, noise), **silent)
    assert single.keys() == {"single_frame/photometric", "total"}
    frozen = compute((outputs, None, students, depths, batch, noise), **silent)
    assert frozen.keys() == {"student/photometric", "total"}


def test_mask_weights_scale_only_photometric_terms(case):
    outputs, teacher, students, depths, batch, noise = case
    full = batch.replace(masks=jnp.ones_like(batch.masks))
    plain, less, more = (compute(case, mask_weight=rule) for rule in ("off", "less", "more"))
    for name, value in plain.items():
        np.testing.assert_allclose(less[name], value, rtol=1e-6)
        assert (more[name] == 0) == name.endswith("/photometric")
    empty = compute((outputs, teacher, students, depths, full, noise), mask_weight="less")
    assert empty["student/photometric"] == empty["teacher/photometric"] == 0
    np.testing.assert_allclose(empty["student/consistency"], plain["student/consistency"], rtol=1e-6)


def test_one_device_equals_four(case):
    outputs, teacher, students, depths, batch, noise = case
    alone = compute(case)

    def split(x, dim):
        return jnp.moveaxis(x.reshape(*x.shape[:dim], 4, -1, *x.shape[dim + 1 :]), dim, 0)

    outputs, batch, noise = jax.tree.map(lambda x: split(x, 0), (outputs, batch, noise))
    dims = Views(depths=1, warped=2, holes=2)
    teacher = jax.tree.map(split, teacher, dims.replace(holes=None))
    students = jax.tree.map(split, students, dims)
    together = jax.pmap(lambda *case: compute_losses(*case, Config(), "devices"), axis_name="devices")(
        outputs, teacher, students, split(depths, 1), batch, noise
    )
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-5, err_msg=name)


def test_each_network_has_gradients_from_its_own_terms(case):
    outputs, teacher, students, depths, batch, noise = case

    def total(teacher, students, depths):
        return compute_losses(outputs, teacher, students, depths, batch, noise, Config(), None)["total"]

    by_teacher, by_student, by_depths = jax.jit(jax.grad(total, (0, 1, 2), allow_int=True))(teacher, students, depths)
    assert not by_depths.any() and not by_teacher.depths.any()
    assert by_teacher.warped.any() and by_student.warped.any() and by_student.depths.any()
    assert not (students.holes[..., None] * by_student.warped).any()
    assert not by_student.warped[:, :, 1].any()  # sample 1 went through matching augmentation


def test_colour_of_holes_has_no_effect(case):
    outputs, teacher, students, depths, batch, noise = case
    painted = students.replace(warped=jnp.where(students.holes[..., None], 0.7, students.warped))
    before, after = compute(case), compute((outputs, teacher, painted, depths, batch, noise))
    np.testing.assert_array_equal(before["total"], after["total"])


def test_perfect_views_have_no_photometric_error(case):
    outputs, teacher, students, depths, batch, noise = case
    perfect = jnp.broadcast_to(batch.images[:, 1], teacher.warped.shape)
    students = students.replace(warped=jnp.where(students.holes[..., None], 0, perfect))
    losses = compute((outputs, teacher.replace(warped=perfect), students, depths, batch, noise))
    np.testing.assert_allclose([losses["teacher/photometric"], losses["student/photometric"]], 0, atol=1e-6)


def test_empty_masks_give_zero_loss_and_finite_gradients(case):
    outputs, teacher, students, depths, batch, noise = case
    nothing = batch.replace(exists=jnp.zeros_like(batch.exists))

    def total(teacher, students):
        losses = compute_losses(outputs, teacher, students, depths, nothing, noise, Config(), None)
        return losses["total"], losses

    (_, losses), grads = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True, allow_int=True))(teacher, students)
    assert losses["teacher/photometric"] == 0 and losses["student/photometric"] == 0
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((losses, grads)) if x.dtype == jnp.float32)


def test_without_motion_mask_only_augmented_samples_have_consistency(case):
    losses = compute(case, motion_mask=False)
    _, _, students, depths, *_ = case
    expected = jnp.abs(students.depths - depths)[:, 1].sum() / depths.size
    np.testing.assert_allclose(losses["student/consistency"], expected, rtol=1e-5)


def test_uint8_images_raise(case):
    outputs, *_, batch, _ = case
    with pytest.raises(ValueError, match="augment the batch"):
        LossInputs(Networks.__new__(Networks), outputs, batch.replace(images=np.zeros((B, 3, H, W, 3), np.uint8)), Config(), None)


@pytest.mark.parametrize("frozen", [False, True])
def test_terms_without_weight_are_absent(frozen):
    config = Config()
    assert all(term.weight > 0 for term in objective.loss_terms(config, frozen))
    names = {term.name for term in objective.loss_terms(config, frozen)}
    config.loss.smoothness, config.loss.pose_cycle = 0.0, 0.1
    changed = {term.name for term in objective.loss_terms(config, frozen)}
    assert {name for name in names if name.endswith("smoothness")} == names - changed
    assert changed - names == (set() if frozen else {"pose/cycle"})
