import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax import parallel
from dd_jax.train_step import create_state, loss_fn, predict, train_step
from dd_jax.types import TARGET


@pytest.fixture(scope="module")
def config():
    return tiny.config()


@pytest.fixture(scope="module")
def state(config):
    return jax.tree.map(np.asarray, create_state(config))  # on the host: no test can donate it away


def gradients(state, config, term, frozen=False):
    """Gradient norm of one loss term with respect to every network."""

    def loss(params):
        _, (metrics, _, _) = loss_fn(params, state, tiny.batch(), config, None, frozen)
        return metrics[term]

    grads = jax.jit(jax.grad(loss))(state.params)
    return {name: float(sum(jnp.sum(g * g) for g in jax.tree.leaves(tree))) ** 0.5 for name, tree in grads.items()}


@pytest.mark.parametrize(
    ("term", "learners"),
    [
        ("teacher/photometric", {"teacher", "pose"}),
        ("teacher/smoothness", {"teacher"}),
        ("student/photometric", {"student"}),
        ("student/consistency", {"student"}),
        ("student/smoothness", {"student"}),
    ],
)
def test_each_term_teaches_only_its_networks(state, config, term, learners):
    norms = gradients(state, config, term)
    assert {name for name, norm in norms.items() if norm > 0} == learners
    assert np.isfinite(list(norms.values())).all()


def test_step_learns_moves_the_bins_and_counts(state, config):
    step = jax.jit(lambda s, b: train_step(s, b, config=config, axis=None, frozen=False))
    new, metrics = step(state, tiny.batch())
    assert int(new.step) == 1 and metrics["skipped"] == 0
    for name in state.params:
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), new.params[name], state.params[name])
        assert max(jax.tree.leaves(moved)) > 0
    assert not np.array_equal(new.depth_range, state.depth_range)
    for _ in range(3):
        new, later = step(new, tiny.batch())
    assert later["total"] < metrics["total"]


def test_frozen_step_changes_the_student_alone(state, config):
    step = jax.jit(lambda s, b: train_step(s, b, config=config, axis=None, frozen=True))
    new, metrics = step(state, tiny.batch())
    for tree_new, tree_old in ((new.params, state.params), (new.batch_stats, state.batch_stats)):
        for name in ("teacher", "pose"):
            jax.tree.map(np.testing.assert_array_equal, tree_new[name], tree_old[name])
    assert not any(name.startswith("teacher/") for name in metrics)
    np.testing.assert_array_equal(new.depth_range, state.depth_range)
    student = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), new.params["student"], state.params["student"])
    assert max(jax.tree.leaves(student)) > 0


def test_step_that_is_not_finite_changes_only_the_counter(state, config):
    batch = tiny.batch()
    broken = batch.replace(K=np.full_like(batch.K, np.nan))
    new, metrics = jax.jit(lambda s, b: train_step(s, b, config=config, axis=None, frozen=False))(state, broken)
    assert metrics["skipped"] == 1 and int(new.step) == 1
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(new, step=state.step), state)


@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_four_devices_compute_what_one_does(state, backend):
    config = tiny.config(train={"backend": backend})
    results = []
    for devices in (jax.devices()[:1], jax.devices()[:4]):
        step = parallel.compile_step(config, False, devices)
        current = parallel.replicate(jax.tree.map(jnp.array, state), devices)
        losses = []
        for seed in range(2):
            current, metrics = step(current, parallel.shard_batch(tiny.batch(seed=seed), config, devices))
            losses.append(jax.tree.map(float, metrics))
        results.append((parallel.on_host(current), losses))
    (one, losses_one), (four, losses_four) = results
    for a, b in zip(losses_one, losses_four):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=1e-6, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4), one.batch_stats, four.batch_stats)
    np.testing.assert_allclose(one.depth_range, four.depth_range, rtol=1e-5)


def test_gradients_and_parameters_are_equal_on_four_devices(state, config):
    """One step of plain gradients: Adam's first step would turn a rounding error of a zero gradient into a sign."""

    def all_of(state, batch, axis):
        (value, (metrics, stats, depth_range)), grad = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state, batch, config, axis, False
        )
        return value, metrics, stats, depth_range, grad if axis is None else jax.lax.pmean(grad, axis)

    batch = tiny.batch()
    single = jax.jit(lambda s, b: all_of(s, b, None))(state, batch)
    mapped = jax.pmap(lambda s, b: all_of(s, b, "batch"), "batch", in_axes=(None, 0), out_axes=None, devices=jax.devices()[:4])
    four = mapped(state, jax.tree.map(lambda x: x.reshape(4, 1, *x.shape[1:]), batch))
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(four)):
        scale = float(np.abs(np.asarray(a)).max()) + 1e-6
        np.testing.assert_allclose(np.asarray(a) / scale, np.asarray(b) / scale, atol=2e-4)


def test_step_compiles_once(state, config):
    step = parallel.compile_step(config, False, jax.devices()[:1])
    current = parallel.replicate(jax.tree.map(jnp.array, state), jax.devices()[:1])
    for seed in range(3):
        batch = parallel.shard_batch(tiny.batch(seed=seed), config, jax.devices()[:1])
        with jax.transfer_guard("disallow"):
            current, _ = step(current, batch)
        if seed == 0:
            size = step._cache_size()
    assert step._cache_size() == size


def test_prediction_ignores_the_future_and_needs_no_past(state, config):
    run = jax.jit(lambda s, b: predict(s, b, config))
    batch = tiny.batch(frames=2)
    full = run(state, batch)
    assert full.student.shape == (4, tiny.HEIGHT, tiny.WIDTH)
    assert np.isfinite(full.student).all() and (full.teacher >= 1 / config.model.max_depth).all()

    exists = batch.exists.copy()
    exists[0, 0] = False
    images = batch.images.copy()
    images[0, 0] = 0
    first = run(state, batch.replace(exists=exists, images=images))
    np.testing.assert_allclose(first.teacher, full.teacher, rtol=1e-5)
    np.testing.assert_allclose(first.student[1:], full.student[1:], rtol=1e-4)
    assert np.isfinite(first.student).all() and not np.allclose(first.student[0], full.student[0], rtol=1e-3)
    assert batch.images.shape[1] == TARGET + 1
