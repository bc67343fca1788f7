from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import OptimConfig
from dd_jax.method import optimizer
from dd_jax.runtime import forms
from dd_jax.types import TrainState


def reference_adam(gradients, rates):
    """Kingma and Ba's algorithm 1 in float64."""
    value, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for t, (g, rate) in enumerate(zip(gradients, rates), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        value = value - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return value


def test_adam_with_a_stepped_rate():
    config = OptimConfig(learning_rate=0.1, decay_steps=3, decay_factor=0.5)
    gradients = np.random.default_rng(0).normal(size=(7, 3))
    params = {"student": {"w": jnp.zeros(3)}}
    state = optimizer.initialise(params, config)
    for g in gradients:
        params, state = optimizer.update({"student": {"w": jnp.asarray(g, jnp.float32)}}, params, state, config)
    expected = reference_adam(gradients, [0.1 * 0.5 ** (t // 3) for t in range(7)])
    np.testing.assert_allclose(params["student"]["w"], expected, rtol=1e-5)


def test_networks_without_gradients_are_unchanged():
    params = {"student": {"w": jnp.ones(2)}, "teacher": {"w": jnp.ones(2)}}
    state = optimizer.initialise(params, OptimConfig())
    new, new_state = optimizer.update({"student": {"w": jnp.ones(2)}}, params, state, OptimConfig())
    assert new["teacher"] is params["teacher"] and new_state["teacher"] is state["teacher"]
    assert not np.array_equal(new["student"]["w"], params["student"]["w"])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.shape, b.shape), state, new_state)


@pytest.mark.parametrize("form", forms.OPERATIONS["update"])
@pytest.mark.parametrize("loss", [1.0, np.nan])
def test_state_changes_only_if_loss_and_gradient_are_finite(form, loss):
    config, draw = OptimConfig(), np.random.default_rng(0)
    params, grads = (
        {"student": {"w": jnp.asarray(draw.normal(size=(3, 4)), jnp.float32)}, "pose": {"b": jnp.full(2, value)}}
        for value in (1.0, 0.5)
    )
    state = TrainState(jnp.int32(4), params, {"pose": {"mean": jnp.zeros(2)}}, optimizer.initialise(params, config), jnp.ones(2))
    new = state.replace(batch_stats={"pose": {"mean": jnp.ones(2)}}, depth_range=jnp.full(2, 3.0))
    with forms.use(update=form):
        run = jax.jit(partial(optimizer.update_if_finite, config=config))
        found, norms, finite = run(grads, jnp.float32(loss), state, new)
        overflown, _, small = run(grads | {"pose": {"b": jnp.array([0.5, jnp.inf])}}, jnp.float32(1), state, new)
    params, opt_state = optimizer.update(grads, state.params, state.opt_state, config)
    expected = new.replace(params=params, opt_state=opt_state) if np.isfinite(loss) else state
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, expected.replace(step=5))
    jax.tree.map(np.testing.assert_array_equal, overflown, state.replace(step=5))
    assert finite == np.isfinite(loss) and not small and norms["pose"] == pytest.approx(0.5 * 2**0.5)


def test_restart_resets_the_state_of_one_network():
    config = OptimConfig(decay_steps=2)
    params = {"student": {"w": jnp.ones(2)}, "teacher": {"w": jnp.ones(2)}}
    fresh = optimizer.initialise(params, config)
    _, used = optimizer.update(params, params, fresh, config)
    again = optimizer.reset_network(used, "student")
    jax.tree.map(np.testing.assert_array_equal, again["student"], fresh["student"])
    assert again["teacher"] is used["teacher"]
