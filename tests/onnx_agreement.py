"""Compares a function in JAX with its ONNX conversion in onnxruntime."""

import jax
import numpy as np
import pytest

NEEDS = "needs onnx and onnxruntime: pip install -e '.[export]'"
pytest.importorskip("onnx", reason=NEEDS)
onnxruntime = pytest.importorskip("onnxruntime", reason=NEEDS)

from dd_jax.export.onnx.convert import convert  # noqa: E402


def model(function, *arrays, symbolic=False):
    """The ONNX model of a function of these arrays; ``symbolic``: with a first axis of any size."""
    batch = jax.export.symbolic_shape("batch")[0] if symbolic else None
    shapes = [jax.ShapeDtypeStruct((batch, *x.shape[1:]) if symbolic else x.shape, x.dtype) for x in arrays]
    program = jax.jit(function).trace(*shapes).jaxpr
    inputs, outputs = ([f"{name}{i}" for i in range(len(of))] for name, of in (("x", arrays), ("y", program.jaxpr.outvars)))
    return convert(program, inputs, outputs, "a test", batch)


def check(function, *arrays, symbolic=False, rtol=1e-6, atol=1e-6):
    """Same shapes and values in both."""
    session = onnxruntime.InferenceSession(
        model(function, *arrays, symbolic=symbolic).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = {f"x{i}": x.astype(np.int64) if x.dtype.kind == "i" else x for i, x in enumerate(arrays)}
    found = session.run(None, given)
    expected = jax.tree.leaves(jax.jit(function)(*arrays))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == (np.int64 if theirs.dtype.kind in "iu" else theirs.dtype)
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=rtol, atol=atol)
