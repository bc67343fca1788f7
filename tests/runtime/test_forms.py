"""The choice of forms, and that a whole step computes the same with the forms of every backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.method import train_step
from dd_jax.runtime import forms

ONE, TWO = jnp.float32(1), jnp.float32(2)


@pytest.fixture
def scale(monkeypatch):
    """An operation whose forms are products with 2, 3 and 5."""
    monkeypatch.setitem(forms.OPERATIONS, "scale", {"two": ("cpu",), "three": ("gpu", "tpu"), "five": ()})
    by_form = {"two": lambda x: 2 * x, "three": lambda x: 3 * x, "five": lambda x: 5 * x}
    return jax.jit(lambda x: forms.choose("scale", by_form, x))


def test_every_backend_has_one_form_of_every_operation():
    for operation, by_form in forms.OPERATIONS.items():
        assert sorted(backend for backends in by_form.values() for backend in backends) == sorted(forms.BACKENDS), operation


@pytest.mark.parametrize(("platform", "factor"), [("cpu", 2), ("cuda", 3), ("rocm", 3), ("tpu", 3)])
def test_choice_follows_the_platform_of_lowering(scale, platform, factor):
    assert f"dense<{factor}.0" in scale.trace(ONE).lower(lowering_platforms=(platform,)).as_text()


def test_program_for_all_platforms_keeps_the_choice(scale):
    exported = jax.export.export(scale, platforms=("tpu", "cuda", "cpu"))(ONE)
    assert exported.call(ONE) == 2
    assert all(f"dense<{factor}.0" in exported.mlir_module() for factor in (2, 3))


def test_forced_forms(scale):
    assert scale(ONE) == 2
    with forms.use("gpu"):
        assert scale(ONE) == 3
        with forms.use(scale="five"):
            assert scale(ONE) == 5
        assert scale(ONE) == 3
    with forms.use("tpu", scale="five"):
        assert scale(ONE) == 5
    assert scale(ONE) == 2


def test_forms_from_the_environment(scale, monkeypatch):
    for value, factor in {"gpu": 3, "scale=five": 5, "gpu,scale=five": 5, " tpu , z_buffer=max ": 3, "jitter=batch": 2}.items():
        monkeypatch.setenv(forms.VARIABLE, value)
        assert scale.__wrapped__(ONE) == factor
        with forms.use("cpu"):
            assert scale.__wrapped__(ONE) == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cuda", "forms of backend 'cuda': give one of cpu, gpu, tpu"),
        ("gpu,tpu", "give one backend only"),
        ("splat=max", "there are no forms of 'splat': give one of images, sampling, z_buffer"),
        ("z_buffer=mean", "z_buffer has no form 'mean': give one of min, max"),
    ],
)
def test_unknown_forms_are_named(scale, value, message, monkeypatch):
    monkeypatch.setenv(forms.VARIABLE, value)
    with pytest.raises(ConfigError, match=f"{forms.VARIABLE}={value}: {message}"):
        scale.__wrapped__(ONE)


SYSTEMS = {
    "dynamic_depth": {},
    "ds_depth": {"ds": {"enabled": True}, "domd": {"enabled": False}, "cost_volume": {"occlusion": "none"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_step_is_the_same_with_the_forms_of_every_backend(system):
    config = tiny.config(**(tiny.SHARP | SYSTEMS[system]))
    config.data.batch_size = 2
    state, batch = train_step.create_state(config), tiny.batch(2)

    def losses_and_gradients(params, batch):
        loss = lambda params: train_step.loss_fn(params, state, batch, config, None, False)  # noqa: E731
        gradients, (losses, *_) = jax.grad(loss, has_aux=True)(params)
        return losses, gradients

    compute = jax.jit(losses_and_gradients)
    losses, gradients = compute(state.params, batch)
    for backend in ("gpu", "tpu"):
        with forms.use(backend):
            other_losses, other_gradients = compute(state.params, batch)
        for name, value in losses.items():
            np.testing.assert_allclose(other_losses[name], value, rtol=1e-4, err_msg=f"{backend}: {name}")
        for name in gradients:
            difference, size = (
                np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))
                for tree in (jax.tree.map(jnp.subtract, gradients[name], other_gradients[name]), gradients[name])
            )
            assert difference < 1e-2 * size, f"{backend}: {name}"
