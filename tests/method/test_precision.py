"""Training in less memory: half precision, rematerialisation, microbatches."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.method.microbatches import mean_over_microbatches
from dd_jax.method.predict_step import predict_step
from dd_jax.method.train_step import create_state, loss_fn

SINGLE = {"model": {"student": False}, "domd": {"enabled": False}, "optim": {"freeze_step": -1}}


def gradients(params, state, batch, config):
    """(gradients, metrics, batch statistics, depth range) of a step."""

    def one(part):
        return jax.grad(loss_fn, has_aux=True)(params, state, part, config, None, False)

    grads, rest = mean_over_microbatches(one, batch, config.train.microbatches)
    return grads, *rest


class Run(NamedTuple):
    """A compiled step: gradients, metrics, batch statistics and depth range; memory in bytes; convolutions of the program."""

    found: tuple
    memory: int
    convolutions: int
    compiled: jax.stages.Compiled


def lowered(config, batch):
    state = jax.eval_shape(lambda: create_state(config))
    program = jax.jit(partial(gradients, config=config)).lower(state.params, state, batch)
    return program, program.as_text().count("stablehlo.convolution(")


def gradients_of(config, batch):
    program, convolutions = lowered(config, batch)
    state, compiled = create_state(config), program.compile()
    return Run(compiled(state.params, state, batch), compiled.memory_analysis().temp_size_in_bytes, convolutions, compiled)


def assert_close(one, other, share):
    """Compares each tensor, with a tolerance relative to its norm."""
    jax.tree.map(lambda a, b: np.testing.assert_array_less(np.linalg.norm(a - b), share * np.linalg.norm(a) + 1e-8), one, other)


@pytest.fixture(scope="module")
def reference():
    return gradients_of(tiny.config(**SINGLE), tiny.batch())


def assert_same_step(reference, other):
    assert_close(reference.found[0], other.found[0], 1e-4)
    assert_close(reference.found[1:3], other.found[1:3], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["blocks", "convolutions"])
def test_remat_keeps_gradients(reference, remat):
    assert_same_step(reference, gradients_of(tiny.config(**SINGLE, train={"remat": remat}), tiny.batch()))


@pytest.mark.slow
def test_remat_repeats_convolutions(reference):
    """Only an accelerator's compiler knows its memory; this test checks that convolutions are repeated."""
    repeated, kept = (
        lowered(tiny.config(**SINGLE, train={"remat": remat}), tiny.batch())[1] for remat in ("blocks", "convolutions")
    )
    assert kept == reference.convolutions < repeated


@pytest.mark.slow
def test_microbatches_average_gradients_and_statistics(reference):
    """Two microbatches of the reference's size; both start from the same state."""
    batch, state = tiny.batch(8), create_state(tiny.config(**SINGLE))
    whole = gradients_of(tiny.config(**SINGLE, train={"microbatches": 2}), batch)
    parts = [jax.tree.map(lambda x, part=part: x[part::2], batch) for part in range(2)]
    grads, metrics, stats, _ = jax.tree.map(
        lambda a, b: (a + b) / 2, *(reference.compiled(state.params, state, part) for part in parts)
    )
    assert_close((grads, metrics), whole.found[:2], 1e-4)
    assert_close(stats, whole.found[2], 1e-5)  # updated once, by the mean of both
    assert whole.memory < 1.25 * reference.memory, "eight samples in two parts need little more than four at once"


@pytest.mark.slow
def test_remat_of_the_whole_system_keeps_gradients():
    grads, metrics, *_ = gradients_of(tiny.config(), tiny.batch()).found
    again, same, *_ = gradients_of(tiny.config(train={"remat": "blocks"}), tiny.batch()).found
    assert_close(grads, again, 2e-3)
    assert_close(metrics, same, 1e-4)


@pytest.mark.slow
def test_bfloat16_leaves_gradients_metrics_and_statistics_in_float32(reference):
    half = tiny.config(**SINGLE | {"model": SINGLE["model"] | {"precision": "bfloat16"}})
    grads, metrics, stats, _ = gradients_of(half, tiny.batch()).found
    for tree in (grads, metrics, stats):
        assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    exact_grads, exact_metrics, exact_stats, _ = reference.found
    assert_close(exact_metrics, metrics, 0.02)
    assert_close(exact_stats, stats, 0.02)
    whole, half = (np.concatenate([g.ravel() for g in jax.tree.leaves(tree["teacher"])]) for tree in (exact_grads, grads))
    assert whole @ half / (np.linalg.norm(whole) * np.linalg.norm(half)) > 0.9
    assert not np.array_equal(whole, half)


def test_bfloat16_predictions_are_close_to_float32():
    found = {}
    for precision in ("float32", "bfloat16"):
        config = tiny.config(model={"precision": precision})
        found[precision] = jax.jit(partial(predict_step, config=config))(create_state(config), tiny.batch(frames=2))
    for name in ("teacher", "student"):
        exact, half = (getattr(found[precision], name) for precision in ("float32", "bfloat16"))
        assert half.dtype == jnp.float32 and not np.array_equal(exact, half)
        np.testing.assert_allclose(exact, half, rtol=0.05)
        assert len(np.unique(half)) > 0.9 * half.size, "the last layers are as fine as depth is"
