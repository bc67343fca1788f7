"""Convolutions and matrix products."""

import string
from collections.abc import Callable
from typing import Any

import numpy as np

from dd_jax.export.onnx.arrays import shape_of
from dd_jax.export.onnx.graph import Graph, Tensor, constant, unsupported


def convolution(g: Graph, eqn: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """A convolution, with channels first as in ONNX."""
    params = eqn.params
    if params["batch_group_count"] != 1:
        raise unsupported("batch groups of a convolution")
    numbers, out = params["dimension_numbers"], shape_of(eqn.outvars[0])
    x, kernel = (
        g.transpose(g.full(tensor, shape_of(variable)), spec)
        for tensor, variable, spec in zip((x, kernel), eqn.invars, (numbers.lhs_spec, numbers.rhs_spec))
    )
    x, surplus = _dilate(g, x, params["lhs_dilation"])
    pads = [int(low) for low, _ in params["padding"]] + [int(high) - more for (_, high), more in zip(params["padding"], surplus)]
    if min(pads) < 0:
        raise unsupported("negative padding of a convolution")
    found = g.add(
        "Conv", x, kernel, shape=tuple(out[axis] for axis in numbers.out_spec), dtype=x.dtype,
        pads=pads, strides=params["window_strides"], dilations=params["rhs_dilation"], group=params["feature_group_count"],
    )  # fmt: skip
    return g.transpose(found, np.argsort(numbers.out_spec).tolist())


def _dilate(g: Graph, x: Tensor, steps: tuple[int, ...]) -> tuple[Tensor, list[int]]:
    """Input dilation of (b, c, h, w) by zeros, for transposed convolutions; and the number of surplus zeros at the ends."""
    if set(steps) == {1}:
        return x, [0] * len(steps)
    b, c, *size = x.shape
    spread = g.unsqueeze(x, [3, 5])
    after = [0, 0, 0, steps[0] - 1, 0, steps[1] - 1]
    wide = g.pad(spread, [0] * 6, after, constant(np.zeros((), x.dtype)))
    grown = g.reshape(wide, (b, c, *(n * step for n, step in zip(size, steps))))
    return grown, [step - 1 for step in steps]


def product(g: Graph, eqn: Any, x: Tensor, y: Tensor) -> Tensor:
    (contracted, batched), out = eqn.params["dimension_numbers"], shape_of(eqn.outvars[0])
    x, y = (g.full(tensor, shape_of(variable)) for tensor, variable in zip((x, y), eqn.invars))
    if not batched[0] and len(y.shape) <= 2 and (tuple(contracted[0]), tuple(contracted[1])) == ((len(x.shape) - 1,), (0,)):
        return g.add("MatMul", x, y, shape=out, dtype=x.dtype)
    letters = iter(string.ascii_lowercase)
    left = [next(letters) for _ in x.shape]
    right = [next(letters) for _ in y.shape]
    for places in (contracted, batched):
        for here, there in zip(*places):
            right[there] = left[here]
    batch = [left[axis] for axis in batched[0]]
    own = [letter for letters in (left, right) for letter in letters if (letter in left) != (letter in right)]
    equation = f"{''.join(left)},{''.join(right)}->{''.join([*batch, *own])}"
    return g.add("Einsum", x, y, shape=out, dtype=x.dtype, equation=equation)


RULES: dict[str, Callable[..., Tensor]] = {"conv_general_dilated": convolution, "dot_general": product}
