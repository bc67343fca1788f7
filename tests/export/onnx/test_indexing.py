import jax
import jax.numpy as jnp
import numpy as np
import onnx_agreement
import pytest

from dd_jax.config import ConfigError

X = np.random.default_rng(0).standard_normal((2, 6, 8, 3)).astype(np.float32)
ROWS = np.array([[5, 0, 3], [1, 1, 2]], np.int32)


@pytest.mark.parametrize("symbolic", [False, True])
def test_constant_indices_become_slices(symbolic):
    def function(x):
        return [
            x[:, 1:-1, 2:],
            x[:, ::2, 1::3],
            x[:, 3],
            x[..., 1],
            x[:, jnp.array([0, 2, 2, 5])],
            x[:, (4, 1), ...],
            jnp.take(x, np.array([1, *range(8), 6]), axis=2, mode="clip"),
            x[:, 2:4, 5],
        ]

    onnx_agreement.check(function, X, symbolic=symbolic)
    operators = {node.op_type for node in onnx_agreement.model(function, X, symbolic=symbolic).graph.node}
    assert not {"GatherND", "Expand"} & operators


@pytest.mark.parametrize("symbolic", [False, True])
def test_indices_per_sample(symbolic):
    def function(x, rows):
        return jax.vmap(lambda image, index: image[index, index + 1])(x, rows)

    onnx_agreement.check(function, X, ROWS, symbolic=symbolic)


def test_computed_indices():
    def function(x, rows):
        k, y = rows
        return [
            x[k % 2, y, y],
            x[k % 2, :, y],
            x.ravel()[rows],
            x.at[k % 2, y, y, k % 3].get(mode="clip"),
            jax.lax.dynamic_slice(x, (k[0], y[0], 0, 0), (1, 4, 8, 3)),
            jax.lax.dynamic_index_in_dim(x, y[2], axis=1, keepdims=False),
            jnp.searchsorted(jnp.array([0, 0, 2, 3, 3, 9]), rows.ravel()),
        ]

    onnx_agreement.check(function, X, ROWS)


def test_scatter_min():
    """As the splat writes depths, per sample."""

    def function(cells, place, depth):
        return jax.vmap(lambda c, p, z: c.at[p].min(z, mode="promise_in_bounds"))(cells, place, depth)

    cells = np.full((2, 7), np.inf, np.float32)
    place = np.array([[0, 3, 3, 6], [1, 1, 1, 2]], np.int32)
    depth = np.array([[4, 2, 1, 8], [3, 1, 2, 5]], np.float32)
    onnx_agreement.check(function, cells, place, depth, symbolic=True)


def test_scatter_drops_out_of_bounds():
    def function(costs, place):
        return costs.at[place].set(jnp.arange(4.0), mode="drop"), costs.at[place].add(1.0, mode="drop")

    onnx_agreement.check(function, np.arange(5, dtype=np.float32), np.array([4, 5, 99, 0], np.int32))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, rows: x.at[rows[0] % 2, rows[1]].set(0.0), "a scatter along several axes"),
        (lambda x, rows: x.at[rows].get(mode="fill", fill_value=0), "slices at computed positions"),
    ],
)
def test_unsupported_raises(function, message):
    with pytest.raises(ConfigError, match=message):
        onnx_agreement.model(function, X, ROWS)
