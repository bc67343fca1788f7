import jax
import jax.numpy as jnp
import numpy as np
import onnx_agreement
import pytest

from dd_jax.config import ConfigError

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("symbolic", [False, True])
def test_shapes(symbolic):
    onnx_agreement.check(
        lambda x: [
            x.reshape(-1, 60),
            x.reshape(x.shape[0] * 3, 4, 5).transpose(1, 0, 2),
            jnp.moveaxis(x, 1, -1),
            x[:, :, None] + jnp.zeros((1, 1, 2, 1, 1)),
            jnp.broadcast_to(x[:, :1], x.shape) + jnp.broadcast_to(jnp.arange(x.shape[0])[:, None, None, None], x.shape),
            jnp.repeat(x, 3, axis=2),
            jnp.tile(x, (2, 1, 1, 1)),
            jnp.concatenate([x, x[:, ::-1]], axis=1),
            jnp.stack([x, -x], axis=1),
            jnp.stack([x, jnp.ones_like(x)], axis=-1),
            *jnp.split(x, (1, 3), axis=2),
            *jnp.unstack(x, axis=1),
            jnp.squeeze(x[:, 1:2], 1),
            jnp.pad(x, ((0, 0), (1, 2), (0, 0), (3, 0)), constant_values=7.0),
            jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect"),
            jax.lax.pad(x, -jnp.inf, ((0, 0, 0), (0, 0, 0), (1, -1, 0), (-2, 1, 0))),
            x[:, 1:, ::2, 4:0:-2],
        ],
        X,
        symbolic=symbolic,
    )


@pytest.mark.parametrize("symbolic", [False, True])
def test_reductions(symbolic):
    onnx_agreement.check(
        lambda x: [
            jnp.sum(x, axis=(1, 3)),
            jnp.max(x, axis=0),
            jnp.min(x, axis=-1, keepdims=True),
            jnp.mean(x, axis=(1, 2)),
            jnp.any(x > 1, axis=1),
            jnp.all(x > -1, axis=(0, 1)),
            jnp.sum(x > 0, axis=2),
            jnp.cumsum(x, axis=2),
        ],
        X,
        symbolic=symbolic,
    )


@pytest.mark.parametrize(("operation", "start"), [(jax.lax.add, 0.0), (jax.lax.max, 0.0), (jax.lax.min, 9.0)])
def test_reduce_window(operation, start):
    def function(x):
        window = (1, 3, 1, 2)
        return jax.lax.reduce_window(x, start, operation, window, (1,) * 4, ((0, 0), (1, 1), (0, 0), (0, 0)))

    onnx_agreement.check(function, X, symbolic=True)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 1))), "interior padding"),
        (lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 1, 2, 1), (1, 1, 2, 1), "VALID"), "a strided or dilated"),
        (lambda x: x[:1], "a slice of the batch"),
        (lambda x: x[:-1], "a slice of the batch"),
        (lambda x: jnp.zeros(x.shape[0] + 1) + jnp.sum(x), r"an axis of size batch \+ 1"),
    ],
)
def test_unsupported_raises(function, message):
    with pytest.raises(ConfigError, match=f"ONNX export does not support {message}.*: use --format=stablehlo"):
        onnx_agreement.check(function, X, symbolic=True)
