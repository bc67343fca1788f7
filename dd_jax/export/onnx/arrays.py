"""Shapes, slices and reductions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dd_jax.export.onnx.elementwise import emit
from dd_jax.export.onnx.graph import Graph, Shape, Tensor, constant, integers, onnx_type, unsupported


def shape_of(variable: Any) -> Shape:
    """The traced shape of a variable."""
    return tuple(variable.aval.shape)


def unchanged(g: Graph, eqn: Any, *inputs: Tensor) -> list[Tensor]:
    """Identity: names, barriers and stop_gradient."""
    return list(inputs)


def broadcast(g: Graph, eqn: Any, x: Tensor, *_: Tensor) -> Tensor:
    """Only adds axes of size 1; they are expanded where needed, see :meth:`Graph.full`."""
    rank, old = len(eqn.params["shape"]), eqn.params["broadcast_dimensions"]
    return g.unsqueeze(x, [axis for axis in range(rank) if axis not in old])


def reshape(g: Graph, eqn: Any, x: Tensor, *_: Tensor) -> Tensor:
    return g.reshape(g.full(x, shape_of(eqn.invars[0])), shape_of(eqn.outvars[0]))


def squeeze(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    return g.squeeze(x, eqn.params["dimensions"])


def transpose(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    return g.transpose(x, eqn.params["permutation"])


def concatenate(g: Graph, eqn: Any, *inputs: Tensor) -> Tensor:
    parts = [g.full(x, shape_of(variable)) for x, variable in zip(inputs, eqn.invars)]
    return g.add("Concat", *parts, shape=shape_of(eqn.outvars[0]), dtype=parts[0].dtype, axis=int(eqn.params["dimension"]))


def stack(g: Graph, eqn: Any, *inputs: Tensor) -> Tensor:
    axis = int(eqn.params["axis"])
    parts = [g.unsqueeze(g.full(x, shape_of(variable)), [axis]) for x, variable in zip(inputs, eqn.invars)]
    return g.add("Concat", *parts, shape=shape_of(eqn.outvars[0]), dtype=parts[0].dtype, axis=axis)


def tile(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    x, shape = g.full(x, shape_of(eqn.invars[0])), shape_of(eqn.outvars[0])
    return x if x.shape == shape else g.add("Tile", x, integers(*eqn.params["reps"]), shape=shape, dtype=x.dtype)


def pad(g: Graph, eqn: Any, x: Tensor, value: Tensor) -> Tensor:
    """Padding; negative widths crop."""
    x, config = g.full(x, shape_of(eqn.invars[0])), eqn.params["padding_config"]
    if any(inner for _, _, inner in config):
        raise unsupported("interior padding")
    for axis, (low, high, _) in enumerate(config):
        if low < 0 or high < 0:
            x = g.slice(x, axis, max(0, -low), min(high, 0) or None)
    return g.pad(x, *([max(0, int(side[i])) for side in config] for i in (0, 1)), value)


def strided_slice(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    x, strides = g.full(x, shape_of(eqn.invars[0])), eqn.params["strides"]
    for axis, (start, stop) in enumerate(zip(eqn.params["start_indices"], eqn.params["limit_indices"])):
        end = None if stop == x.shape[axis] else stop
        x = g.slice(x, axis, start, end, 1 if strides is None else strides[axis])
    return x


def reverse(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    for axis in eqn.params["dimensions"]:
        x = x if x.shape[axis] == 1 else g.slice(x, axis, -1, None, -1)
    return x


def split(g: Graph, eqn: Any, x: Tensor) -> list[Tensor]:
    x, axis, pieces, start = g.full(x, shape_of(eqn.invars[0])), int(eqn.params["axis"]), [], 0
    for size in map(int, eqn.params["sizes"]):
        pieces.append(g.slice(x, axis, start, start + size))
        start += size
    return pieces


def unstack(g: Graph, eqn: Any, x: Tensor) -> list[Tensor]:
    x, axis = g.full(x, shape_of(eqn.invars[0])), int(eqn.params["axis"])
    return [g.squeeze(g.slice(x, axis, place, place + 1), [axis]) for place in range(x.shape[axis])]


def iota(g: Graph, eqn: Any, *_: Tensor) -> Tensor:
    shape, axis, dtype = eqn.params["shape"], eqn.params["dimension"], eqn.params["dtype"]
    others = [other for other in range(len(shape)) if other != axis]
    if isinstance(shape[axis], int):
        return g.unsqueeze(constant(np.arange(shape[axis], dtype=dtype)), others)
    start, step = constant(np.int64(0)), constant(np.int64(1))
    end = g.squeeze(g.size(shape[axis]), [0])
    numbers = g.add("Range", start, end, step, shape=(shape[axis],), dtype=np.int64)
    return g.unsqueeze(g.add("Cast", numbers, shape=numbers.shape, dtype=dtype, to=onnx_type(dtype)), others)


REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_and": "ReduceMin", "reduce_or": "ReduceMax",
}  # fmt: skip


def reduce(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    """Sums and extremes; of booleans, the extreme of the numbers 0 and 1."""
    x, shape, logical = g.full(x, shape_of(eqn.invars[0])), shape_of(eqn.outvars[0]), x.dtype.kind == "b"
    if logical:
        x = g.add("Cast", x, shape=x.shape, dtype=np.int64, to=onnx_type(np.int64))
    axes = integers(*eqn.params["axes"])
    found = g.add(REDUCTIONS[eqn.primitive.name], x, axes, shape=shape, dtype=x.dtype, keepdims=0)
    return g.add("Cast", found, shape=shape, dtype=bool, to=onnx_type(bool)) if logical else found


def cumsum(g: Graph, eqn: Any, x: Tensor) -> Tensor:
    x = g.full(x, shape_of(eqn.invars[0]))
    axis = constant(np.int64(eqn.params["axis"]))
    return g.add("CumSum", x, axis, shape=x.shape, dtype=x.dtype, reverse=int(eqn.params["reverse"]))


WINDOWS = {"add": "Add", "max": "Max", "min": "Min"}


def reduce_window(g: Graph, eqn: Any, x: Tensor, start: Tensor | None = None) -> Tensor:
    """Sums or extremes over windows, axis by axis, from shifted copies of the array."""
    params = eqn.params
    if eqn.primitive.name == "reduce_window_sum":
        operations, start = ["add"], constant(np.zeros((), x.dtype))
    else:
        operations = [inner.primitive.name for inner in params["jaxpr"].eqns]
    dilations = (*params["window_strides"], *params["base_dilation"], *params["window_dilation"])
    if len(operations) != 1 or operations[0] not in WINDOWS or set(dilations) != {1}:
        raise unsupported("a strided or dilated reduce_window")
    x = g.full(x, shape_of(eqn.invars[0]))
    if any(low or high for low, high in params["padding"]):
        x = g.pad(x, *([int(side[i]) for side in params["padding"]] for i in (0, 1)), start)
    for axis, window in enumerate(params["window_dimensions"]):
        if window > 1:
            length = x.shape[axis] - window + 1
            total, *more = (g.slice(x, axis, place, place + length) for place in range(window))
            for part in more:
                total = emit(g, WINDOWS[operations[0]], total, part, dtype=x.dtype)
            x = total
    return x


RULES: dict[str, Callable[..., Tensor | list[Tensor]]] = dict.fromkeys(REDUCTIONS, reduce) | {
    "broadcast_in_dim": broadcast,
    "concatenate": concatenate,
    "copy": unchanged,
    "cumsum": cumsum,
    "iota": iota,
    "name": unchanged,
    "optimization_barrier": unchanged,
    "pad": pad,
    "reduce_window": reduce_window,
    "reduce_window_sum": reduce_window,
    "reshape": reshape,
    "rev": reverse,
    "slice": strided_slice,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "stop_gradient": unchanged,
    "tile": tile,
    "transpose": transpose,
    "unstack": unstack,
}
