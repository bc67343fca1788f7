"""Gather and scatter. Constant indices that form a grid, as in slices, become slices and gathers along single axes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from dd_jax.export.onnx.arrays import shape_of
from dd_jax.export.onnx.elementwise import emit
from dd_jax.export.onnx.graph import Graph, Shape, Tensor, constant, integers, unsupported


def gather(g: Graph, eqn: Any, operand: Tensor, indices: Tensor) -> Tensor:
    """``lax.gather`` of whole slices, or of one position per indexed axis."""
    dims, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    operand, indices = (g.full(x, shape_of(variable)) for x, variable in zip((operand, indices), eqn.invars))
    if not all(isinstance(operand.shape[axis], int) for axis in dims.start_index_map):
        raise unsupported("a slice of the batch")
    known = None
    if indices.value is not None and not dims.operand_batching_dims:
        limits = [operand.shape[axis] - sizes[axis] for axis in dims.start_index_map]
        index = np.clip(indices.value, 0, limits)
        if eqn.params["mode"] != GatherScatterMode.FILL_OR_DROP or np.array_equal(index, indices.value):
            known = _grid(index)
    if known is not None and all(
        len(positions) == 1 or axis in dims.collapsed_slice_dims for axis, (_, positions) in zip(dims.start_index_map, known)
    ):
        x, labels = _pick(g, operand, dims, sizes, known)
    else:
        x, labels = _gather_nd(g, operand, indices, dims, sizes, eqn.params["mode"])
    return _arrange(g, x, labels, dims, shape_of(eqn.outvars[0]))


def _grid(index: np.ndarray) -> list[tuple[int | None, np.ndarray]] | None:
    """Per component of an index array (*i, n): the axis along which it varies, and its values there; None: not a grid."""
    found, taken = [], set()
    for component in np.moveaxis(index, -1, 0):
        varies = [axis for axis in range(component.ndim) if (component != component.take([0], axis)).any()]
        if len(varies) > 1 or taken & set(varies):
            return None
        taken |= set(varies)
        axis = varies[0] if varies else None
        along = component.ravel()[:1] if axis is None else np.moveaxis(component, axis, -1).reshape(-1, component.shape[axis])[0]
        found.append((axis, along))
    return found if all(size == 1 or axis in taken for axis, size in enumerate(index.shape[:-1])) else None


def _pick(
    g: Graph, x: Tensor, dims: Any, sizes: Shape, grid: list[tuple[int | None, np.ndarray]]
) -> tuple[Tensor, list[tuple[str, int]]]:
    """Slices and gathers along single axes; with the origin of each axis of the result: index ("i") or operand ("o")."""
    labels = [("o", axis) for axis in range(len(x.shape))]
    for axis, (along, positions) in zip(dims.start_index_map, grid):
        positions = positions.astype(int)
        if axis not in dims.collapsed_slice_dims:
            x = g.slice(x, axis, int(positions[0]), int(positions[0]) + sizes[axis])
            continue
        labels[axis] = ("i", along)
        step = int(positions[1] - positions[0]) if len(positions) > 1 else 1
        if step > 0 and (np.diff(positions) == step).all():
            x = g.slice(x, axis, int(positions[0]), int(positions[-1]) + 1, step)
        else:
            shape = (*x.shape[:axis], len(positions), *x.shape[axis + 1 :])
            x = g.add("Gather", x, integers(*positions.tolist()), shape=shape, dtype=x.dtype, axis=int(axis))
    single = [axis for axis, label in enumerate(labels) if label == ("i", None)]
    return g.squeeze(x, single), [label for label in labels if label != ("i", None)]


def _gather_nd(
    g: Graph, operand: Tensor, indices: Tensor, dims: Any, sizes: Shape, mode: GatherScatterMode
) -> tuple[Tensor, list[tuple[str, int]]]:
    """One row of the operand per index vector; labels as in :func:`_pick`."""
    batching, mapped = (list(map(int, axes)) for axes in (dims.operand_batching_dims, dims.start_index_map))
    if any(sizes[axis] != 1 for axis in mapped) or mode == GatherScatterMode.FILL_OR_DROP:
        raise unsupported("slices at computed positions")
    rest = [axis for axis in range(len(operand.shape)) if axis not in (*batching, *mapped)]
    rows = g.transpose(operand, [*batching, *mapped, *rest])
    if mode == GatherScatterMode.CLIP:
        last = np.array([operand.shape[axis] - 1 for axis in mapped])
        above = emit(g, "Max", indices, constant(np.int64(0)), dtype=np.int64)
        indices = emit(g, "Min", above, constant(last), dtype=np.int64)
    first = list(map(int, dims.start_indices_batching_dims))
    order = [*first, *(axis for axis in range(len(indices.shape) - 1) if axis not in first)]
    positions = g.transpose(indices, [*order, len(order)])
    shape = (*positions.shape[:-1], *(operand.shape[axis] for axis in rest))
    found = g.add("GatherND", rows, positions, shape=shape, dtype=operand.dtype, batch_dims=len(batching))
    return found, [*(("i", axis) for axis in order), *(("o", axis) for axis in rest)]


def _arrange(g: Graph, x: Tensor, labels: list[tuple[str, int]], dims: Any, shape: Shape) -> Tensor:
    """Axes in output order, with those of size 1 inserted."""
    kept = iter(
        axis
        for axis in range(len(dims.offset_dims) + len(dims.collapsed_slice_dims) + len(dims.operand_batching_dims))
        if axis not in dims.collapsed_slice_dims and axis not in dims.operand_batching_dims
    )
    numbers = iter(range(len(shape)))
    wanted = [("o", next(kept)) if axis in dims.offset_dims else ("i", next(numbers)) for axis in range(len(shape))]
    x = g.transpose(x, [labels.index(label) for label in wanted if label in labels])
    return g.unsqueeze(x, [axis for axis, label in enumerate(wanted) if label not in labels])


def dynamic_slice(g: Graph, eqn: Any, x: Tensor, *starts: Tensor) -> Tensor:
    """A slice of constant size at a computed position, shifted to lie inside the array."""
    x, sizes = g.full(x, shape_of(eqn.invars[0])), eqn.params["slice_sizes"]
    axes = [axis for axis, size in enumerate(sizes) if size != x.shape[axis]]
    if not axes:
        return x
    lengths = integers(*(sizes[axis] for axis in axes))
    positions = g.add("Concat", *(g.unsqueeze(starts[axis], [0]) for axis in axes), shape=(len(axes),), dtype=np.int64, axis=0)
    last = integers(*(x.shape[axis] - sizes[axis] for axis in axes))
    first = emit(g, "Min", emit(g, "Max", positions, integers(0), dtype=np.int64), last, dtype=np.int64)
    end = emit(g, "Add", first, lengths, dtype=np.int64)
    return g.add("Slice", x, first, end, integers(*axes), shape=shape_of(eqn.outvars[0]), dtype=x.dtype)


REDUCTION = {"scatter": "none", "scatter-add": "add", "scatter-max": "max", "scatter-min": "min"}


def scatter(g: Graph, eqn: Any, operand: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Scatter of scalars along the last axis; positions out of bounds are dropped."""
    dims, shape = eqn.params["dimension_numbers"], shape_of(eqn.invars[0])
    last = len(shape) - 1
    if (
        dims.update_window_dims
        or tuple(dims.scatter_dims_to_operand_dims) != (last,)
        or not tuple(dims.operand_batching_dims) == tuple(dims.scatter_indices_batching_dims) == tuple(range(last))
        or len(shape_of(eqn.invars[1])) != last + 2
    ):
        raise unsupported("a scatter along several axes")
    operand, indices, updates = (g.full(x, shape_of(v)) for x, v in zip((operand, indices, updates), eqn.invars))
    positions = g.squeeze(indices, [last + 1])
    outside = eqn.params["mode"] == GatherScatterMode.FILL_OR_DROP
    if outside:  # an extra position for dropped values
        size = constant(np.int64(shape[last]))
        below = emit(g, "Less", positions, constant(np.int64(0)), dtype=bool)
        inside = emit(g, "Min", emit(g, "Where", below, size, positions, dtype=np.int64), size, dtype=np.int64)
        operand, positions = g.pad(operand, [0] * len(shape), [0] * last + [1], constant(np.zeros((), operand.dtype))), inside
    reduction = REDUCTION[eqn.primitive.name]
    found = g.add(
        "ScatterElements", operand, positions, updates, shape=operand.shape, dtype=operand.dtype, axis=last, reduction=reduction
    )
    return g.slice(found, last, 0, shape[last]) if outside else found


RULES: dict[str, Callable[..., Tensor]] = dict.fromkeys(REDUCTION, scatter) | {"dynamic_slice": dynamic_slice, "gather": gather}
