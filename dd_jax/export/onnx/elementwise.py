"""Elementwise operations. Broadcast inputs are not expanded for them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dd_jax.export.onnx.graph import Graph, Tensor, common_shape, constant, onnx_type, unsupported

SAME = {
    "abs": "Abs", "add": "Add", "and": "And", "cos": "Cos", "div": "Div", "eq": "Equal", "exp": "Exp", "floor": "Floor",
    "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "le_to": "LessOrEqual", "log": "Log", "logistic": "Sigmoid",
    "lt": "Less", "lt_to": "Less", "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or",
    "pow": "Pow", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "sub": "Sub", "tanh": "Tanh", "xor": "Xor",
}  # fmt: skip
"""JAX primitives with one ONNX operator."""

LOGICAL = ("and", "not", "or", "xor")


def emit(g: Graph, op: str, *inputs: Tensor, dtype: Any, **attributes: Any) -> Tensor:
    """One elementwise node."""
    return g.add(op, *inputs, shape=common_shape(*(x.shape for x in inputs)), dtype=dtype, **attributes)


def same(g: Graph, eqn: Any, *inputs: Tensor) -> Tensor:
    """A primitive of :data:`SAME`."""
    name, kind = eqn.primitive.name, eqn.invars[0].aval.dtype
    if (name in LOGICAL and kind.kind != "b") or (name.endswith("_to") and kind.kind == "f"):
        raise unsupported(f"{name} of {kind}")
    return emit(g, SAME[name], *inputs, dtype=eqn.outvars[0].aval.dtype)


def cast(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    """Type conversion; between integers a no-op, see ``graph.py``."""
    dtype = eqn.params["new_dtype"]
    if onnx_type(x.dtype) == onnx_type(dtype):
        return Tensor(x.shape, np.dtype(dtype), x.name, x.value)
    return g.add("Cast", x, shape=x.shape, dtype=dtype, to=onnx_type(dtype))


def clamp(g: Graph, eqn: Any, low: Tensor, x: Tensor, high: Tensor) -> Tensor:
    return emit(g, "Min", emit(g, "Max", x, low, dtype=x.dtype), high, dtype=x.dtype)


def expm1(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    """exp(x) - 1, accurate to the rounding of 1, enough for an activation; ONNX has no expm1."""
    return emit(g, "Sub", emit(g, "Exp", x, dtype=x.dtype), constant(np.array(1, x.dtype)), dtype=x.dtype)


def integer_pow(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    power = eqn.params["y"]
    if power == 2:
        return emit(g, "Mul", x, x, dtype=x.dtype)
    return emit(g, "Pow", x, constant(np.array(power, x.dtype)), dtype=x.dtype)


def is_finite(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    either = emit(g, "Or", emit(g, "IsNaN", x, dtype=bool), emit(g, "IsInf", x, dtype=bool), dtype=bool)
    return emit(g, "Not", either, dtype=bool)


def not_equal(g: Graph, eqn: Any, x: Tensor, y: Tensor) -> Tensor:
    return emit(g, "Not", emit(g, "Equal", x, y, dtype=bool), dtype=bool)


def rem(g: Graph, eqn: Any, x: Tensor, y: Tensor) -> Tensor:
    return emit(g, "Mod", x, y, dtype=x.dtype, fmod=1)


def rsqrt(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    return emit(g, "Reciprocal", emit(g, "Sqrt", x, dtype=x.dtype), dtype=x.dtype)


def select(g: Graph, eqn: Any, which: Tensor, *cases: Tensor) -> Tensor:
    """``cases[which]``, for two cases."""
    if which.dtype.kind != "b" or len(cases) != 2:
        raise unsupported(f"select_n of {len(cases)} arrays")
    no, yes = cases
    if no.dtype.kind != "b":
        return emit(g, "Where", which, yes, no, dtype=no.dtype)
    chosen = emit(g, "And", which, yes, dtype=bool)  # runtimes select between numbers only
    return emit(g, "Or", chosen, emit(g, "And", emit(g, "Not", which, dtype=bool), no, dtype=bool), dtype=bool)


def square(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    return emit(g, "Mul", x, x, dtype=x.dtype)


RULES: dict[str, Callable[..., Tensor]] = dict.fromkeys(SAME, same) | {
    "clamp": clamp,
    "convert_element_type": cast,
    "expm1": expm1,
    "integer_pow": integer_pow,
    "is_finite": is_finite,
    "ne": not_equal,
    "rem": rem,
    "rsqrt": rsqrt,
    "select_n": select,
    "square": square,
}
