import jax
import jax.numpy as jnp

from dd_jax.geometry.camera import disp_to_depth, invert_intrinsics
from dd_jax.runtime.operations import first_nan


def test_first_operation_with_a_nan_is_found_in_the_forward_and_the_backward_pass():
    x = jnp.array([0.0, 1.0])
    with jax.named_scope("views"):
        assert first_nan(lambda x: jnp.sqrt(x) + 1 / x, x) is None, "infinite is not NaN"
    assert first_nan(lambda x: jnp.log(x - 2), x).startswith("log")
    found = first_nan(jax.grad(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0).sum()), x)
    assert found.startswith("mul") and "transpose" in found


def test_operations_inside_of_compiled_functions_are_named_by_their_line():
    @jax.jit
    def program(K, disp):
        with jax.named_scope("camera"):
            return invert_intrinsics(K).sum() + disp_to_depth(disp, 0.1, 100.0).sum()

    K = jnp.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = first_nan(program, K, jnp.ones(3))
    assert found.startswith("div in invert_intrinsics (dd_jax/geometry/camera.py:") and found.endswith("part camera")
    assert first_nan(program, jnp.eye(3), jnp.ones(3)) is None
