import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.losses.consistency import consistency, dynamic_cycle, pose_cycle, pyramid_distillation, reliable_pixels
from dd_jax.types import CostVolume


def volume(lowest, confidence):
    costs = jnp.zeros((*lowest.shape, 2))
    return CostVolume(costs=costs, observed=costs == 0, confidence=confidence, lowest=lowest)


def test_reliable_pixels_agree_within_a_factor_two():
    depth = jnp.full((1, 8, 12), 4.0)
    cheapest = jnp.array([1.9, 2.1, 7.9, 8.1, 4.0, 4.0])  # depth of the cheapest bin
    lowest = (1 / cheapest).reshape(1, 2, 3)
    confidence = jnp.ones((1, 2, 3)).at[0, 1, 2].set(0)
    reliable = reliable_pixels(volume(lowest, confidence), depth)
    expected = np.array([[False, True, True], [False, True, False]])
    np.testing.assert_array_equal(reliable[0], np.kron(expected, np.ones((4, 4), bool)))


def test_consistency_averages_all_pixels_without_teacher_gradient():
    teacher = jnp.ones((2, 1, 2, 4))
    student = teacher + jnp.array([1.0, -3.0]).reshape(2, 1, 1, 1)
    photometric = jnp.zeros((1, 2, 4), bool).at[0, 0].set(True)  # half of the pixels
    np.testing.assert_allclose(consistency(student, teacher, photometric, None), [0.5, 1.5])
    close = consistency(teacher * 3, teacher, photometric, None, logarithmic=True)
    far = consistency(teacher * 30, teacher * 10, photometric, None, logarithmic=True)
    np.testing.assert_allclose((close, far), np.full((2, 2), np.log(3) / 2), rtol=1e-6)  # the same for every scale
    by_student, by_teacher = jax.grad(lambda s, t: consistency(s, t, photometric, None).sum(), (0, 1))(student, teacher)
    assert not by_teacher.any()
    np.testing.assert_allclose(by_student[:, 0], jnp.array([1, -1]).reshape(2, 1, 1) * ~photometric / 8)


def test_consistency_is_zero_on_photometric_pixels():
    depths = jax.random.uniform(jax.random.key(0), (4, 2, 4, 4))
    np.testing.assert_array_equal(consistency(depths, 2 * depths, jnp.ones((2, 4, 4), bool), None), 0)


def test_pyramid_distillation_has_gradients_for_both_sides():
    disps = jnp.full((3, 2, 4, 6), 0.3).at[2].add(0.24)
    terms, gradient = pyramid_distillation(disps, None), jax.grad(lambda d: pyramid_distillation(d, None).sum())(disps)
    np.testing.assert_allclose(terms, [0, 0.01**0.4, 0.25**0.4], rtol=1e-5)
    assert np.all(gradient[0] < 0) and np.all(gradient[2] > 0)


def test_dynamic_cycle_has_teacher_gradients_on_close_object_pixels():
    teacher = jnp.full((1, 1, 2, 4), 2.0)
    student = teacher.at[0, 0].set(jnp.array([[2.5, 1.5, 4.5, 0.9], [2.5, 1.5, 2.5, 1.5]]))  # 4.5 and 0.9 are off by a factor two
    masks = jnp.zeros((1, 2, 4), bool).at[0, 0].set(True)
    np.testing.assert_allclose(dynamic_cycle(teacher, student, masks, None), [0.5], rtol=1e-6)
    by_teacher, by_student = jax.grad(lambda t, s: dynamic_cycle(t, s, masks, None).sum(), (0, 1))(teacher, student)
    assert not by_student.any()
    np.testing.assert_allclose(by_teacher[0, 0], [[-0.5, 0.5, 0, 0], [0, 0, 0, 0]], rtol=1e-6)
    assert dynamic_cycle(teacher, student, jnp.zeros_like(masks), None) == 0


def test_pose_cycle_sums_over_matrices_and_averages_samples():
    trips = jnp.tile(jnp.eye(4), (2, 2, 1, 1))
    assert pose_cycle(trips, None) == 0
    trips = trips.at[0, 0, 0, 3].set(0.5).at[1, 1, 2, 3].set(-1.5)
    np.testing.assert_allclose(pose_cycle(trips, None), 1.0)
