"""N devices compute the same as one, under both backends, in training and in evaluation.

The training step is compared in double precision: in float32, rounding moves single pixels and activations across decisions
(masks, minima, kinks of ReLU and absolute values), which changes small gradients by up to 10 % in some batches.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import light_run
import numpy as np
import pytest
import tiny
from fakes import FakeSource, settings

from dd_jax.benchmarks import compile_for
from dd_jax.data.loader import batch_shapes
from dd_jax.evaluation import evaluate
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state, train_step
from dd_jax.runtime import parallel, reduce

SAMPLES = 8

CONFIGS = {
    "baseline": {},
    "single frame": {"model": {"student": False}, "domd": {"enabled": False}, "optim": {"freeze_step": -1}},
    "every term": {
        "loss": {
            "normal_l1": 0.1,
            "normal_rank": 0.1,
            "normal_anchors": 64,
            "pose_cycle": 0.1,
            "mask_weight": "less",
            "dynamic_cycle": 0.1,
        },
        "model": {"flow": True},
    },
    "microbatches": {"train": {"microbatches": 2}},
    "standing": {"model": {"initial_forward": 0.0}},
    "frozen": {},
    "sc_depth": {
        "model": {"student": False},
        "domd": {"enabled": False},
        "sc": {"enabled": True},
        "data": {"priors": "files"},
        "loss": {"smoothness": 0.0, "normal_l1": 0.1, "normal_rank": 0.1, "normal_anchors": 64, "normal_prior": "file"},
        "optim": {"freeze_step": -1},
    },
    "ds_depth": {
        "domd": {"enabled": False},
        "cost_volume": {"occlusion": "none"},
        "ds": {"enabled": True},
        "loss": {"pyramid_distillation": 1e-3},
    },
}
"""Fields on top of ``tiny.SHARP``; "frozen" is the step in which teacher and pose are fixed."""


@pytest.fixture
def double(monkeypatch):
    """``jnp.float32``, by which the library names its precision, is float64 while a test runs."""
    monkeypatch.setattr(jnp, "float32", jnp.float64)
    with jax.enable_x64(True):
        yield


def in_precision(tree):
    """Floats in the precision of the test, see :func:`double`."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if np.issubdtype(x.dtype, np.floating) else x, tree)


def sharp_config(name, backend="pmap"):
    given = tiny.SHARP | {"train": {"backend": backend}, "data": {"batch_size": SAMPLES}, "optim": {"learning_rate": 1e-4}}
    return tiny.config(**{key: given.get(key, {}) | CONFIGS[name].get(key, {}) for key in {*given, *CONFIGS[name]}})


def uneven_batch(seed=0, prior=False):
    """Objects of different sizes in every second sample; one sample without a previous frame, one without a next one.

    ``prior``: with the prior depth of SC-DepthV3. Its mask breaks no ties by noise, so noise in the images avoids ties.
    """
    batch = tiny.batch(SAMPLES, seed)
    if prior:
        noise = np.random.default_rng(seed).integers(-20, 21, batch.images.shape)
        rows = np.arange(1, tiny.HEIGHT + 1)[:, None] * np.arange(1, SAMPLES + 1)[:, None, None]
        depth = np.broadcast_to(100 * rows, (SAMPLES, tiny.HEIGHT, tiny.WIDTH)).astype(np.uint16)
        batch = batch.replace(images=np.clip(batch.images + noise, 0, 255).astype(np.uint8), prior=depth)
    for sample, frame in ((1, 0), (6, 2)):
        batch.exists[sample, frame] = False
        batch.images[sample, frame] = 0
    return in_precision(batch)


def shapes_of(batch):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


def uneven_batches(name, count):
    return [uneven_batch(seed, prior=name == "sc_depth") for seed in range(count)]


@cache
def state_on_host(name):
    config = sharp_config(name)
    state = jax.tree.map(np.array, create_state(config))  # no step can donate it away
    if config.sc.enabled:  # pairs in either order: motion that is not only forward
        state.params["pose"]["out"]["bias"][3:5] -= np.float32([0.03, 0.02]) / config.model.translation_scale
    return state


def initial_state(name):
    return in_precision(state_on_host(name))


@cache
def one_device_step(name):
    return jax.jit(partial(train_step, config=sharp_config(name), axis=None, frozen=name == "frozen"))


def mapped_step(name, backend, number):
    return _mapped_step(name, backend, number, jnp.float32)


@cache
def _mapped_step(name, backend, number, precision):
    devices = jax.devices()[:number]
    state = parallel.replicate(initial_state(name), devices)
    shapes = shapes_of(uneven_batches(name, 1)[0])
    return compiled_steps.compile_train_step_now(sharp_config(name, backend), name == "frozen", state, shapes, devices)


def run(name, backend, number, batches, afresh=False):
    """Metrics and state after every step; ``afresh``: every step starts from the initial state."""
    config, devices, step = sharp_config(name, backend), jax.devices()[:number], mapped_step(name, backend, number)
    state = None
    for batch in batches:
        if state is None or afresh:
            state = parallel.replicate(initial_state(name), devices)
        batch = parallel.shard_batch(batch, config, devices)
        with jax.transfer_guard("disallow"):
            state, metrics = step(state, batch)
        yield jax.device_get(metrics), parallel.on_host(state)


CASES = [("baseline", backend, number) for backend in ("pmap", "jit") for number in (1, 2, 4, 8)]
CASES += [("every term", "pmap", 4), ("microbatches", "jit", 4), ("frozen", "pmap", 4)]
CASES += [("sc_depth", "jit", 4), ("ds_depth", "pmap", 4), ("single frame", "jit", 8)]
FAST = [("baseline", "pmap", 8)]


@pytest.mark.parametrize(
    ("name", "backend", "number", "count"),
    [*((*case, 1) for case in FAST), *(pytest.param(*case, 2, marks=pytest.mark.slow) for case in CASES)],
)
def test_devices_compute_the_same_as_one(name, backend, number, count, double):
    """Losses, gradients of every layer, batch statistics and the range of the bins after one step on each of ``count`` batches.

    Gradients relative to their norm. Measured: 5e-13 for gradients, 3e-14 for metrics.
    """
    batches = uneven_batches(name, count)
    for batch, (metrics, many) in zip(batches, run(name, backend, number, batches, afresh=True), strict=True):
        one, expected = one_device_step(name)(initial_state(name), batch)
        assert {x.dtype for x in jax.tree.leaves((one.params, many.params, expected))} == {np.dtype(np.float64)}
        assert metrics.keys() == expected.keys()
        for key, value in expected.items():
            assert float(metrics[key]) == pytest.approx(float(value), rel=1e-12, abs=1e-15), key
        found = gradients(many)
        for layer, gradient in gradients(one).items():
            assert np.linalg.norm(found[layer] - gradient) <= 1e-11 * (np.linalg.norm(gradient) or 1), layer
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13), one.batch_stats, many.batch_stats)
        np.testing.assert_allclose(one.depth_range, many.depth_range, rtol=1e-12)


def gradients(state):
    """Gradients by layer, a bias (whose own may be a sum that cancels) with its kernel, up to a factor.

    After one step Adam's first moment is a tenth of them.
    """
    layers = {}
    for name, network in state.opt_state.items():
        for path, moment in jax.tree_util.tree_flatten_with_path(network[0].mu)[0]:
            layers.setdefault(name + jax.tree_util.keystr(path[:-1]), []).append(np.ravel(moment))
    return {layer: np.concatenate(tensors) for layer, tensors in layers.items()}


@pytest.mark.parametrize("backend", ["pmap", "jit"])
@pytest.mark.parametrize("number", [1, 2, 8])
def test_devices_add_up_their_samples(backend, number, monkeypatch):
    """A step without networks: its sums depend on every pixel and seed, and each device has its own samples."""

    def step(state, batch, *, axis, **_):
        place = jnp.arange(batch.images[0].size, dtype=jnp.float32).reshape(batch.images[0].shape)
        seen = reduce.mean(batch.images * jnp.cos(place), axis) + reduce.mean(jnp.sin(batch.seed.astype(jnp.float32)), axis)
        return jax.tree.map(lambda x: (x + seen).astype(x.dtype), state), {"total": seen}

    monkeypatch.setattr(compiled_steps, "train_step", step)
    config, devices = sharp_config("baseline", backend), jax.devices()[:number]
    state, batch = light_run.create_state(), uneven_batch()
    one, expected = step(state, batch, axis=None)
    many = compiled_steps.compile_train_step_now(config, False, parallel.replicate(state, devices), shapes_of(batch), devices)
    found, metrics = many(parallel.replicate(state, devices), parallel.shard_batch(batch, config, devices))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), parallel.on_host(found), one)
    assert abs(float(expected["total"])) > 0.01 and float(metrics["total"]) == pytest.approx(float(expected["total"]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [("single frame", "jit"), ("baseline", "pmap"), ("baseline", "jit")])
def test_cost_of_a_device_does_not_grow_with_their_number(name, backend, double):
    """Memory, operations and communication by the compiler's account, one sample per device."""
    devices = jax.devices()[:2]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype), uneven_batch())
    state = parallel.replicate(initial_state(name), devices)
    step = compiled_steps.compile_train_step_now(sharp_config(name, backend), False, state, shapes, devices)
    two, eight = (compile_for.account(compiled, None) for compiled in (step, mapped_step(name, backend, SAMPLES)))
    assert two["collectives"].keys() == {"all-reduce"} and two["collectives"] == eight["collectives"]
    assert eight["temporary_bytes"] == pytest.approx(two["temporary_bytes"], rel=0.01)
    assert eight["flops"] == pytest.approx(two["flops"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "number"), [("pmap", 8), ("jit", 4)])
def test_losses_of_fifty_steps_agree(backend, number):
    """In float32, with a camera that stands still at first: where warps are large from the start, rounding grows tenfold
    within a few steps."""
    batches = uneven_batches("standing", 50)
    state, expected = initial_state("standing"), []
    for batch in batches:
        state, metrics = one_device_step("standing")(state, batch)
        expected.append(float(metrics["total"]))
    found = np.array([metrics["total"] for metrics, _ in run("standing", backend, number, batches)])
    assert np.mean(np.abs(found - expected)) <= 1e-3 * np.mean(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-2)


@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_batch_of_another_size_raises(backend, monkeypatch):
    """And is not compiled for. The step has no networks."""
    monkeypatch.setattr(compiled_steps, "train_step", lambda state, batch, **_: (state, {"mean": jnp.mean(batch.images)}))
    config, devices, batch = sharp_config("baseline", backend), jax.devices(), tiny.batch(SAMPLES)
    state, shapes = light_run.create_state(), shapes_of(batch)
    step = compiled_steps.compile_train_step_now(config, False, parallel.replicate(state, devices), shapes, devices)
    twice = jax.tree.map(lambda x: np.concatenate([x, x]), batch)
    with pytest.raises(TypeError, match="compiled"):
        step(parallel.replicate(state, devices), parallel.shard_batch(twice, config, devices))
    step(parallel.replicate(state, devices), parallel.shard_batch(batch, config, devices))


class Drives(FakeSource):
    """Every sample has its own images, whatever batch it is in."""

    def __init__(self, samples):
        super().__init__(samples)
        self.batch = tiny.batch(samples)

    def gather(self, indices, num_frames=3):
        fields = {name: getattr(self.batch, name)[indices] for name in ("images", "masks", "K", "exists")}
        return fields | {name: fields[name][:, :num_frames] for name in ("images", "masks", "exists")}


@cache
def scores(number):
    """Scores of seven samples in batches of three, rounded up to a multiple of the devices."""
    source, config, devices = Drives(7), settings(batch_size=3), jax.devices()[:number]
    state, predict = parallel.replicate(initial_state("baseline"), devices), compiled_steps.compile_predict_step(config, devices)
    config = parallel.with_even_batches(config, devices)
    assert config.eval.batch_size == {1: 3, 2: 4, 4: 4, 8: 8}[number]
    with jax.transfer_guard("disallow"):
        results = evaluate.evaluate(lambda batch: predict(state, batch), source, config, num_panels=2)
    assert sorted(source.asked)[::1] == sorted([*range(7), *(int(name.split()[1]) for name in results.panels)])
    return results


@pytest.mark.parametrize("number", [pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 8])
def test_scores_do_not_depend_on_the_devices(number):
    one, many = scores(1), scores(number)
    assert [name for name, _ in many.images] == [f"sample {index}" for index in range(7)]
    for (_, expected), (_, found) in zip(one.images, many.images, strict=True):
        for network in ("student", "teacher"):
            assert found[network]["all"] == pytest.approx(expected[network]["all"], rel=1e-5)
    for region in evaluate.REGIONS:
        expected, found = one.metrics["student"][region], many.metrics["student"][region]
        assert found["pixels"] == expected["pixels"] and found == pytest.approx(expected, rel=1e-5)
    assert many.panels.keys() == one.panels.keys()


def test_single_process_owns_all_of_a_replicated_state():
    devices = jax.devices()[:4]
    state = parallel.replicate(jax.tree.map(jnp.array, initial_state("baseline")), devices)
    own = parallel.on_own_devices(state, parallel.own_devices(devices))
    assert jax.tree.leaves(own)[0].sharding == jax.tree.leaves(state)[0].sharding
    jax.tree.map(np.testing.assert_array_equal, parallel.on_host(own), initial_state("baseline"))


@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_samples_of_a_divided_batch_come_back_in_order(backend):
    config, batch = tiny.config(train={"backend": backend}), uneven_batch()
    divided = parallel.shard_batch(batch, config, jax.devices()[:4])
    jax.tree.map(np.testing.assert_array_equal, parallel.own_samples(divided, config), batch)


def test_batch_shapes_are_those_of_the_loader():
    """The step is compiled for them before the first batch is there."""
    shapes = batch_shapes(Drives(SAMPLES), sharp_config("baseline"))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), uneven_batch())
