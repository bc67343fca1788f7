import numpy as np
import onnx_agreement  # first: skips where onnx is missing
import pytest

from dd_jax.config import ConfigError
from dd_jax.export.onnx import graph


def test_stored_types():
    assert graph.numpy_type(np.int32) == graph.numpy_type(np.uint32) == np.int64
    assert [graph.numpy_type(kind) for kind in (np.float32, np.bool_, np.uint8)] == [np.float32, np.bool_, np.uint8]
    with pytest.raises(ConfigError, match="arrays of type float16"):
        graph.onnx_type(np.float16)


def test_common_shape():
    assert graph.common_shape((3, 1, 5), (4, 1), ()) == (3, 4, 5)


def test_equal_constants_are_stored_once():
    weights = np.arange(6, dtype=np.float32)
    model = onnx_agreement.model(lambda x: (x + weights) * weights.copy() - 1.0 + weights, np.ones(6, np.float32))
    assert sorted(tuple(tensor.dims) for tensor in model.graph.initializer) == [(), (6,)]


def test_unused_nodes_are_removed():
    def function(x):
        unused = x @ np.ones((6, 1000), np.float32)
        return x + 1.0, unused.sum() * 0

    kept = onnx_agreement.model(lambda x: function(x)[0], np.ones((2, 6), np.float32))
    assert [node.op_type for node in kept.graph.node] == ["Add", "Identity"] and len(kept.graph.initializer) == 1
