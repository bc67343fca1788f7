import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.config.rules import validate
from dd_jax.method.predict_step import offsets_step, predict_step
from dd_jax.method.train_step import create_state, loss_fn, train_step
from dd_jax.types import TARGET

ALL_TERMS = {
    "normal_l1": 0.1, "normal_rank": 0.1, "normal_anchors": 64, "pose_cycle": 0.1, "mask_weight": "less", "dynamic_cycle": 0.1
}  # fmt: skip


@pytest.fixture(scope="module")
def config():
    return tiny.config()


@pytest.fixture(scope="module")
def state(config):
    return jax.tree.map(np.asarray, create_state(config))  # on the host, so that no test can donate its buffers


@pytest.fixture(scope="module")
def step(config):
    """The joint step on one device, compiled once for all tests here."""
    return jax.jit(lambda state, batch: train_step(state, batch, config=config, axis=None, frozen=False))


def sc_config():
    return tiny.config(
        model={"student": False},
        domd={"enabled": False},
        sc={"enabled": True},
        data={"priors": "files"},
        loss={"smoothness": 0.0, "normal_l1": 0.1, "normal_rank": 0.1, "normal_anchors": 64, "normal_prior": "file"},
        optim={"freeze_step": -1},
    )


def ds_config():
    return tiny.config(
        domd={"enabled": False},
        cost_volume={"occlusion": "none"},
        ds={"enabled": True},
        loss={"pyramid_distillation": 1e-3},
    )


SYSTEMS = {  # config, and the networks that receive gradients from each term
    "dynamic_depth": (
        tiny.config(loss=ALL_TERMS, model={"flow": True}, optim={"freeze_step": -1}),
        {
            "teacher/photometric": {"teacher", "pose", "flow"},
            "teacher/smoothness": {"teacher"},
            "teacher/cycle": {"teacher"},
            "student/photometric": {"student", "flow"},
            "student/consistency": {"student"},
            "student/smoothness": {"student"},
            "student/normal_l1": {"student"},
            "student/normal_rank": {"student"},
            "pose/cycle": {"pose"},
        },
    ),
    "sc_depth": (
        sc_config(),
        {
            "single_frame/photometric": {"teacher", "pose"},
            "single_frame/geometry": {"teacher", "pose"},
            "single_frame/depth_rank": {"teacher"},
            "single_frame/normal_l1": {"teacher"},
            "single_frame/normal_rank": {"teacher"},
        },
    ),
    "ds_depth": (
        ds_config(),
        {
            "teacher/photometric": {"teacher", "pose"},
            "teacher/distillation": {"teacher"},
            "student/photometric": {"student", "flow"},
            "student/consistency": {"student"},
            "student/distillation": {"student"},
            "flow/smoothness": {"flow"},
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_each_term_has_gradients_for_its_networks_only(system):
    config, learners = SYSTEMS[system]
    validate(config)
    _, found = gradients_by_term(config, learners)(create_state(config), with_prior(tiny.batch(2), config))
    for row, (term, expected) in enumerate(learners.items()):
        assert {name for name, norms in found.items() if norms[row] > 0} == expected, term
        assert all(np.isfinite(norms[row]) for norms in found.values()), term


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_terms_and_gradients_are_finite_in_degenerate_cases(system):
    config, learners = SYSTEMS[system]
    run = gradients_by_term(config, learners)
    for case, (state, batch) in hard_cases(create_state(config)).items():
        values, found = run(state, with_prior(batch, config))
        for row, term in enumerate(learners):
            assert np.isfinite(values[row]), (case, term)
            assert all(np.isfinite(norms[row]) for norms in found.values()), (case, term)


def gradients_by_term(config, terms):
    """(state, batch) -> the values of ``terms``, and {network: norm of the gradient that each of them gives it}."""

    @jax.jit
    def run(state, batch):
        def losses(params):
            _, (metrics, _, _) = loss_fn(params, state, batch, config, None, False)
            values = jnp.stack([metrics[term] for term in terms])
            return values, values

        gradients, values = jax.jacrev(losses, has_aux=True)(state.params)
        squares = jax.tree.map(lambda g: jnp.sum(g * g, axis=tuple(range(1, g.ndim))), gradients)
        return values, {name: jnp.sqrt(sum(jax.tree.leaves(tree))) for name, tree in squares.items()}

    return run


def with_prior(batch, config):
    if config.data.priors == "none":
        return batch
    shape = (len(batch.seed), *batch.images.shape[2:4])
    return batch.replace(prior=np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16))


def hard_cases(state):
    """(state, batch) where terms may divide by nothing."""
    batch, pose = tiny.batch(), state.params["pose"]
    still = state.replace(params=state.params | {"pose": pose | {"out": jax.tree.map(jnp.zeros_like, pose["out"])}})
    return {
        "no objects": (state, batch.replace(masks=np.zeros_like(batch.masks))),
        "nothing but objects": (state, batch.replace(masks=np.ones_like(batch.masks))),
        "constant images": (state, batch.replace(images=np.full_like(batch.images, 90))),
        "zero poses": (still, batch),
    }


@pytest.mark.slow
def test_disabled_terms_add_no_operations(config):
    """Operations of the uncompiled step: more with each enabled term, the same with all disabled."""

    def flops(**sections):
        asked = tiny.config(**sections)
        state = jax.eval_shape(lambda: create_state(asked))
        step = jax.jit(lambda state, batch: train_step(state, batch, config=asked, axis=None, frozen=False))
        return step.lower(state, tiny.batch()).cost_analysis()["flops"]

    plain = flops()
    off = flops(loss={"normal_prior": "teacher", "normal_anchors": 99, "mask_area": "intersection", "mask_power": 0.5})
    assert off == plain, "options of absent terms change nothing"
    for name in ("normal_l1", "normal_rank", "pose_cycle", "dynamic_cycle", "pyramid_distillation"):
        assert flops(loss={name: 0.1}) > plain, name
    assert flops(loss={"mask_weight": "less"}) > plain
    assert flops(model={"flow": True}) > plain


def test_step_updates_networks_bins_and_counter(state, step):
    new, metrics = step(state, tiny.batch())
    assert int(new.step) == 1 and metrics["skipped"] == 0
    for name in state.params:
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), new.params[name], state.params[name])
        assert max(jax.tree.leaves(moved)) > 0
    assert not np.array_equal(new.depth_range, state.depth_range)


def test_step_is_deterministic(state, step):
    first, second = step(state, tiny.batch()), step(state, tiny.batch())
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_non_finite_step_changes_only_the_counter(state, step):
    batch = tiny.batch()
    new, metrics = step(state, batch.replace(K=np.full_like(batch.K, np.nan)))
    assert metrics["skipped"] == 1 and int(new.step) == 1
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(new, step=state.step), state)


def test_frozen_step_changes_only_the_student(state):
    """With three microbatches, too: the mean of three equal statistics would round."""
    config, batch = tiny.config(train={"microbatches": 3}), tiny.batch(3)
    new, metrics = jax.jit(lambda s, b: train_step(s, b, config=config, axis=None, frozen=True))(state, batch)
    for tree_new, tree_old in ((new.params, state.params), (new.batch_stats, state.batch_stats)):
        for name in tree_old.keys() - {"student"}:
            jax.tree.map(np.testing.assert_array_equal, tree_new[name], tree_old[name])
    assert not any(name.startswith("teacher/") for name in metrics)
    np.testing.assert_array_equal(new.depth_range, state.depth_range)
    student = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), new.params["student"], state.params["student"])
    assert max(jax.tree.leaves(student)) > 0


def test_prediction_without_next_and_previous_frame(state, config):
    run = jax.jit(lambda s, b: predict_step(s, b, config))
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


def test_flow_network_runs_only_for_its_own_output(state):
    """Depth does not need the flow network: prediction has the operations of a system without one."""
    plain, flow = tiny.config(), tiny.config(model={"flow": True})

    def operations(config):
        states = jax.eval_shape(lambda: create_state(config))
        run = jax.jit(lambda s, b: predict_step(s, b, config))
        return run.lower(states, tiny.batch(frames=2)).as_text().count("stablehlo.convolution(")

    assert operations(flow) == operations(plain)
    offsets = jax.jit(lambda s, b: offsets_step(s, b, flow))(create_state(flow), tiny.batch(frames=2))
    assert offsets.shape == (4, tiny.HEIGHT, tiny.WIDTH, 3) and np.isfinite(offsets).all()


@pytest.mark.slow
def test_microbatches_give_the_mean_gradient():
    """Adam's first moment after one step is a tenth of the gradient."""
    config = tiny.config(train={"microbatches": 2})
    state, batch = create_state(config), tiny.batch(4)
    new, _ = jax.jit(lambda s, b: train_step(s, b, config=config, axis=None, frozen=False))(state, batch)
    gradient = jax.jit(lambda b: jax.grad(lambda p: loss_fn(p, state, b, config, None, False)[0])(state.params))
    parts = [gradient(jax.tree.map(lambda x, part=part: x[part::2], batch)) for part in range(2)]
    for name, network in new.opt_state.items():
        mean = jax.tree.map(lambda a, b: (a + b) / 2, parts[0][name], parts[1][name])
        for moment, expected in zip(jax.tree.leaves(network[0].mu), jax.tree.leaves(mean), strict=True):
            assert np.linalg.norm(moment * 10 - expected) <= 1e-2 * np.linalg.norm(expected) + 1e-7


def test_sc_depth_uses_the_finest_scale_only():
    """Heads of coarse scales get no operations in the backward pass, hence zero gradients that are constants."""
    config = sc_config()
    shapes = jax.eval_shape(lambda: create_state(config))
    batch = with_prior(tiny.batch(2), config)
    step = jax.jit(lambda s, b: train_step(s, b, config=config, axis=None, frozen=False))
    sizes = [f"tensor<2x{tiny.HEIGHT >> scale}x{tiny.WIDTH >> scale}x1xf32>" for scale in (1, 2, 3)]
    program = step.lower(shapes, batch).as_text()
    assert not [line for line in program.splitlines() if "convolution" in line and any(size in line for size in sizes)]
