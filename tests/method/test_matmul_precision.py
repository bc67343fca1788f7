"""Geometry, poses, projections and losses are float32 on every backend; only the networks follow the default precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from reduced_precision import as_tf32, file_of, is_exact, products

from dd_jax.geometry import se3, warp
from dd_jax.method.augment import augment
from dd_jax.method.domd import disentangle
from dd_jax.method.forward import forward
from dd_jax.method.objective import LossInputs, compute_losses, loss_terms
from dd_jax.method.pose_refinement import refine_poses
from dd_jax.method.predict_step import offsets_step, predict_step
from dd_jax.method.train_step import create_state, train_step
from dd_jax.method.view_synthesis import full_size_depth, full_size_depths
from dd_jax.networks import model as networks
from dd_jax.types import NEXT, PREVIOUS, TARGET


def users_default():
    """Products as users run them; the tests' own default is "highest"."""
    return jax.default_matmul_precision("default")


def everything():
    """DynamicDepth with all terms and options that other systems lack."""
    config = tiny.system("dynamic_depth")
    config.model.flow, config.model.pose_refinement, config.domd.depth = True, 1, "ground"
    config.cost_volume.features, config.cost_volume.window, config.cost_volume.range_percentile = "colours", 3, 1.0
    config.cost_volume.temperature, config.cost_volume.future_frame, config.augment.zoom = 0.03, True, 1.1
    loss = config.loss
    loss.normal_l1 = loss.normal_rank = loss.pose_cycle = loss.dynamic_cycle = loss.pyramid_distillation = 0.1
    loss.pyramid, loss.mask_weight, loss.consistency_of, loss.automask_parallax = True, "more", "log", 0.01
    return config


def network_products(program):
    """Number of products that follow the default; all of them must be in networks."""
    files = [file_of(eqn) for eqn in products(program.jaxpr) if not is_exact(eqn)]
    assert not {file for file in files if not file.startswith("networks/")}
    return len(files)


COVERED = ("dynamic_depth", "many_depth", "monodepth2")
"""Systems whose operations are among those of :func:`everything`."""


@pytest.mark.parametrize(
    "system", [*(pytest.param(system, marks=pytest.mark.slow) for system in COVERED), "ds_depth", "sc_depth_v3", "everything"]
)
def test_products_outside_of_networks_are_exact(system):
    config = everything() if system == "everything" else tiny.system(system)
    state, batch = jax.eval_shape(lambda: create_state(config)), tiny.batch_for(config)
    with users_default():
        step = jax.make_jaxpr(partial(train_step, config=config, axis=None, frozen=False))(state, batch)
        prediction = jax.make_jaxpr(partial(predict_step, config=config))(state, batch)
    assert network_products(step) > 2 * network_products(prediction) > 100
    if config.model.flow:
        with users_default():
            network_products(jax.make_jaxpr(partial(offsets_step, config=config))(state, batch))


@pytest.fixture(scope="module")
def run():
    """DynamicDepth: config, augmented batch, networks, and outputs of the forward pass in float32 and with TF32."""
    config = tiny.config(**tiny.SHARP)
    state, batch = create_state(config), augment(jax.device_put(tiny.batch(2)), config.augment, train=False)

    model = networks.merge(state.params, state.batch_stats, config, None, train=False)

    def outputs(batch):
        return forward(model, batch, state.depth_range, config, train=False)

    with users_default():
        exact, rounded = (jax.jit(function)(batch) for function in (outputs, as_tf32(outputs)))
    return config, batch, model, exact, rounded


def test_tf32_changes_the_outputs_of_networks(run):
    *_, exact, rounded = run
    for a, b in zip(exact.teacher_disps + exact.student.disps, rounded.teacher_disps + rounded.student.disps, strict=True):
        assert 1e-6 < np.max(np.abs(a - b)) < 2e-2
    assert 1e-8 < np.max(np.abs(exact.T_source_from_target - rounded.T_source_from_target)) < 1e-3


def test_tf32_changes_nothing_after_the_networks(run):
    """Poses, projections, DOMD, refinement and losses from the same outputs of networks."""
    config, batch, model, _, outputs = run

    def after(outputs, batch):
        T, size = outputs.T_source_from_target, batch.images.shape[2:4]
        depth = full_size_depth(outputs.teacher_disps[0], size, config.model)
        return {
            "poses": se3.compose(T, se3.invert_pose(T)),
            "projections": warp.reproject(full_size_depths(outputs.student.disps, config.model), batch.K, jnp.moveaxis(T, 1, 0)),
            "domd": disentangle(batch, (PREVIOUS, NEXT), 1, depth, T, jnp.ones(2, bool), config.domd),
            "refined": refine_poses(T[:, 0], depth, batch.images[:, TARGET], batch.images[:, PREVIOUS], batch.K, 2),
            "losses": compute_losses(LossInputs(model, outputs, batch, config, None), loss_terms(config, False)),
        }

    with users_default():
        exact, rounded = (jax.jit(function)(outputs, batch) for function in (after, as_tf32(after)))
    jax.tree.map(np.testing.assert_array_equal, exact, rounded)
    np.testing.assert_allclose(exact["poses"], np.broadcast_to(np.eye(4), exact["poses"].shape), atol=1e-6)
    rotation = np.asarray(outputs.T_source_from_target, np.float64)[..., :3, :3]
    np.testing.assert_allclose(rotation @ np.swapaxes(rotation, -1, -2), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-6)


def test_simulation_rounds_products_that_ask_for_nothing():
    a, b = (jnp.asarray(np.random.default_rng(seed).random((4, 4), np.float32)) for seed in range(2))
    with users_default():
        rounded = as_tf32(lambda a, b: jax.lax.fori_loop(0, 1, lambda _, x: x @ b, a))(a, b)
    assert 1e-5 < np.max(np.abs(rounded - a @ b)) < 1e-2
    np.testing.assert_array_equal(as_tf32(partial(jnp.matmul, precision="highest"))(a, b), a @ b)
