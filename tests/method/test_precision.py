"""Ways to train in less memory: half the precision, results computed twice, a batch in parts."""

from functools import partial

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


def gradients_of(config, batch, state=None):
    """(gradients, metrics, batch statistics, depth range), compiled, and the memory that they took."""
    state = create_state(config) if state is None else state
    run = jax.jit(partial(gradients, config=config))
    compiled = run.lower(state.params, state, batch).compile()
    return compiled(state.params, state, batch), compiled.memory_analysis().temp_size_in_bytes


def assert_close(one, other, share):
    """Each tensor, to a share of its norm."""
    jax.tree.map(lambda a, b: np.testing.assert_array_less(np.linalg.norm(a - b), share * np.linalg.norm(a) + 1e-8), one, other)


@pytest.fixture(scope="module")
def reference():
    return gradients_of(tiny.config(**SINGLE), tiny.batch())


@pytest.mark.parametrize("kept", [pytest.param("convolutions", marks=pytest.mark.slow), "blocks"])
def test_remat_keeps_gradients(kept, reference):
    (grads, metrics, stats, _), _ = gradients_of(tiny.config(**SINGLE, train={"remat": kept}), tiny.batch())
    assert_close(reference[0][0], grads, 1e-4)
    assert_close((reference[0][1], reference[0][2]), (metrics, stats), 1e-5)


def test_remat_repeats_convolutions():
    """How much memory that spares only the compiler of an accelerator tells; here, that convolutions are or are not repeated."""

    def convolutions(kept):
        config = tiny.config(**SINGLE, train={"remat": kept})
        state = jax.eval_shape(lambda: create_state(config))
        run = jax.jit(partial(gradients, config=config))
        return run.lower(state.params, state, tiny.batch()).as_text().count("stablehlo.convolution(")

    assert convolutions("convolutions") == convolutions("none") < convolutions("blocks")


def test_microbatches_average_gradients_and_statistics(reference):
    batch, state = tiny.batch(), create_state(tiny.config(**SINGLE))
    (grads, metrics, stats, _), memory = gradients_of(tiny.config(**SINGLE, train={"microbatches": 2}), batch)
    one = jax.jit(partial(gradients, config=tiny.config(**SINGLE)))
    found = [one(state.params, state, jax.tree.map(lambda x, part=part: x[part::2], batch)) for part in range(2)]
    mean_grads, mean_metrics, mean_stats, _ = jax.tree.map(lambda a, b: (a + b) / 2, *found)
    assert_close((mean_grads, mean_metrics), (grads, metrics), 1e-4)
    assert_close(mean_stats, stats, 1e-5)  # moved once, by the mean of both
    assert memory < reference[1]


@pytest.mark.slow
def test_remat_of_the_whole_system_keeps_gradients():
    (grads, metrics, *_), _ = gradients_of(tiny.config(), tiny.batch())
    (again, same, *_), _ = gradients_of(tiny.config(train={"remat": "blocks"}), tiny.batch())
    assert_close(grads, again, 2e-3)
    assert_close(metrics, same, 1e-4)


def test_bfloat16_leaves_gradients_metrics_and_statistics_in_float32(reference):
    half = tiny.config(**SINGLE | {"model": SINGLE["model"] | {"precision": "bfloat16"}})
    (grads, metrics, stats, _), _ = gradients_of(half, tiny.batch())
    for tree in (grads, metrics, stats):
        assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    exact_grads, exact_metrics, exact_stats, _ = reference[0]
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
