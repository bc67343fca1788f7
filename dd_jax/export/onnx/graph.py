"""Builder of an ONNX graph: tensors, constants, nodes and loop bodies.

Arrays keep JAX's shapes. All integers except uint8 become int64, ONNX's index type.
"""

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dd_jax.config import ConfigError

OPSET = 18
"""The first opset with ScatterElements of a minimum."""

IR_VERSION = 10

SMALL = 2**20
"""Largest size in bytes of a broadcast constant that is stored expanded."""

Shape = tuple[Any, ...]
"""Sizes: integers, or multiples of the symbolic batch size."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array of the graph; broadcast axes of the traced array may have size 1, as elementwise operations allow."""

    shape: Shape
    dtype: np.dtype
    name: str = ""  # "" for a constant that no node uses yet
    value: np.ndarray | None = None  # of a constant


def unsupported(what: str) -> ConfigError:
    """The error for a program that cannot be converted."""
    return ConfigError(f"ONNX export does not support {what}, which this model uses: use --format=stablehlo")


def constant(value: Any) -> Tensor:
    """A constant tensor."""
    value = np.asarray(value)
    return Tensor(value.shape, value.dtype, value=value)


def integers(*values: int) -> Tensor:
    """An int64 vector."""
    return constant(np.array(values, np.int64))


def common_shape(*shapes: Shape) -> Shape:
    """The broadcast shape, by NumPy's rules."""
    rank = max(map(len, shapes))
    aligned = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*aligned))


class Graph:
    """Nodes, in the order of insertion, and their constants.

    Args:
      batch: the symbolic size of the first axis of every input; None: all sizes are known.
    """

    def __init__(self, batch: Any = None):
        self.batch = batch
        self._batch_size: Tensor | None = None
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[bytes, onnx.TensorProto] = {}
        self._numbers = itertools.count()

    def new_name(self) -> str:
        """An unused name."""
        return f"t{next(self._numbers)}"

    def input(self, name: str, shape: Shape, dtype: Any) -> Tensor:
        """An input of the whole graph; the first one gives the batch size."""
        tensor = Tensor(shape, np.dtype(dtype), name)
        if self.batch is not None and self._batch_size is None:
            self._batch_size = self.add("Shape", tensor, shape=(1,), dtype=np.int64, start=0, end=1)
        return tensor

    def add(self, op: str, *inputs: Tensor | None, shape: Shape, dtype: Any, **attributes: Any) -> Tensor:
        """One node with one output; None is an omitted input."""
        return self.add_many(op, inputs, [(shape, dtype)], **attributes)[0]

    def add_many(
        self, op: str, inputs: Sequence[Tensor | None], outputs: Sequence[tuple[Shape, Any]], **attributes: Any
    ) -> list[Tensor]:
        """One node with the ``outputs`` (shape, type)."""
        found = [Tensor(tuple(shape), np.dtype(dtype), self.new_name()) for shape, dtype in outputs]
        names = ["" if tensor is None else self.name_of(tensor) for tensor in inputs]
        self._nodes.append(helper.make_node(op, names, [tensor.name for tensor in found], **attributes))
        return found

    def name_of(self, tensor: Tensor) -> str:
        """Its name in the graph; equal constants are stored once."""
        if tensor.value is None:
            return tensor.name
        value = np.ascontiguousarray(tensor.value.astype(numpy_type(tensor.dtype))).reshape(tensor.value.shape)
        key = hashlib.sha256(f"{value.dtype} {value.shape}".encode() + value.tobytes()).digest()
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(value, self.new_name())
        return self._constants[key].name

    def sizes(self, shape: Shape) -> Tensor:
        """``shape`` as an int64 vector, computed at run time if symbolic."""
        if all(isinstance(size, int) for size in shape):
            return integers(*shape)
        parts = [integers(size) if isinstance(size, int) else self.size(size) for size in shape]
        return self.add("Concat", *parts, shape=(len(shape),), dtype=np.int64, axis=0)

    def size(self, size: Any) -> Tensor:
        """One size as a vector of length 1."""
        if isinstance(size, int):
            return integers(size)
        times = self.times_batch(size)
        return self.add("Mul", self._batch_size, integers(times), shape=(1,), dtype=np.int64)

    def times_batch(self, size: Any) -> int:
        """A symbolic size as a multiple of the batch size."""
        times = size // self.batch
        if not isinstance(times, int) or times * self.batch != size:
            raise unsupported(f"an axis of size {size}")
        return times

    def full(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The tensor expanded to the traced shape."""
        if tensor.shape == tuple(shape):
            return tensor
        if tensor.value is not None and all(isinstance(size, int) for size in shape):
            value = np.broadcast_to(tensor.value, shape)
            if value.nbytes <= SMALL:
                return constant(value)
        return self.add("Expand", tensor, self.sizes(shape), shape=shape, dtype=tensor.dtype)

    def reshape(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Reshape; ``tensor`` is expanded."""
        if tensor.shape == tuple(shape):
            return tensor
        if tensor.value is not None:
            return constant(tensor.value.reshape(shape))
        if sum(not isinstance(size, int) for size in shape) > 1:
            raise unsupported(f"a reshape to {shape}")
        known = integers(*(size if isinstance(size, int) else -1 for size in shape))
        return self.add("Reshape", tensor, known, shape=shape, dtype=tensor.dtype)

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Permutation of the axes."""
        order = [int(axis) for axis in order]
        if order == list(range(len(tensor.shape))):
            return tensor
        if tensor.value is not None:
            return constant(tensor.value.transpose(order))
        shape = tuple(tensor.shape[axis] for axis in order)
        return self.add("Transpose", tensor, shape=shape, dtype=tensor.dtype, perm=order)

    def unsqueeze(self, tensor: Tensor, axes: Sequence[int]) -> Tensor:
        """Adds axes of size 1, at ``axes`` in the result."""
        if not axes:
            return tensor
        if tensor.value is not None:
            return constant(np.expand_dims(tensor.value, tuple(axes)))
        sizes = iter(tensor.shape)
        shape = tuple(1 if axis in axes else next(sizes) for axis in range(len(tensor.shape) + len(axes)))
        return self.add("Unsqueeze", tensor, integers(*axes), shape=shape, dtype=tensor.dtype)

    def squeeze(self, tensor: Tensor, axes: Sequence[int]) -> Tensor:
        """Removes ``axes``, which have size 1."""
        if not axes:
            return tensor
        if tensor.value is not None:
            return constant(np.squeeze(tensor.value, tuple(axes)))
        shape = tuple(size for axis, size in enumerate(tensor.shape) if axis not in axes)
        return self.add("Squeeze", tensor, integers(*axes), shape=shape, dtype=tensor.dtype)

    def slice(self, tensor: Tensor, axis: int, start: int, stop: Any, step: int = 1) -> Tensor:
        """``start:stop:step`` along one axis; None: to its end. The batch axis cannot be sliced."""
        size = tensor.shape[axis]
        if start == 0 and step == 1 and (stop is None or stop == size):
            return tensor
        if not isinstance(size, int):
            raise unsupported("a slice of the batch")
        length = len(range(size)[start:stop:step])
        shape = (*tensor.shape[:axis], length, *tensor.shape[axis + 1 :])
        end = -(2**62) if stop is None and step < 0 else 2**62 if stop is None else stop
        parts = (integers(number) for number in (start, end, axis, step))
        return self.add("Slice", tensor, *parts, shape=shape, dtype=tensor.dtype)

    def pad(self, tensor: Tensor, before: Sequence[int], after: Sequence[int], value: Tensor) -> Tensor:
        """Padding with ``value``, a scalar."""
        shape = tuple(low + size + high if low or high else size for low, size, high in zip(before, tensor.shape, after))
        return self.add("Pad", tensor, integers(*before, *after), value, shape=shape, dtype=tensor.dtype, mode="constant")

    def body(self, inputs: Sequence[Tensor], outputs: Callable[[], Sequence[Tensor]]) -> onnx.GraphProto:
        """The graph of a loop body, which may read tensors of the outer graph."""
        with self._separate_nodes() as nodes:
            found = [self.add("Identity", tensor, shape=tensor.shape, dtype=tensor.dtype) for tensor in outputs()]
        described = ([self._described(tensor) for tensor in tensors] for tensors in (inputs, found))
        return helper.make_graph(_needed(nodes, found), "body", *described)

    def model(self, inputs: Sequence[Tensor], outputs: dict[str, Tensor], about: str) -> onnx.ModelProto:
        """The finished model."""
        named = []
        for name, tensor in outputs.items():
            self._nodes.append(helper.make_node("Identity", [self.name_of(tensor)], [name]))
            named.append(dataclasses.replace(tensor, name=name, value=None))
        graph = helper.make_graph(
            _needed(self._nodes, named),
            "dd_jax",
            [self._described(tensor) for tensor in inputs],
            [self._described(tensor) for tensor in named],
        )
        used = _read(graph.node)
        graph.initializer.extend(tensor for tensor in self._constants.values() if tensor.name in used)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="dd_jax", doc_string=about)
        model.ir_version = IR_VERSION
        return model

    def _described(self, tensor: Tensor) -> onnx.ValueInfoProto:
        sizes = [size if isinstance(size, int) else "batch" if size == self.batch else None for size in tensor.shape]
        return helper.make_tensor_value_info(tensor.name, onnx_type(tensor.dtype), sizes)

    @contextlib.contextmanager
    def _separate_nodes(self) -> Iterator[list[onnx.NodeProto]]:
        outer, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outer


def numpy_type(dtype: Any) -> np.dtype:
    """The stored type for a JAX type: float32, bool, uint8 or int64."""
    dtype = np.dtype(dtype)
    if dtype in (np.float32, np.bool_, np.uint8):
        return dtype
    if dtype.kind in "iu":
        return np.dtype(np.int64)
    raise unsupported(f"arrays of type {dtype}")


def onnx_type(dtype: Any) -> int:
    """ONNX's number for :func:`numpy_type`."""
    known = {"float32": TensorProto.FLOAT, "bool": TensorProto.BOOL, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}
    return known[numpy_type(dtype).name]


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[Tensor]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on."""
    wanted, kept = {tensor.name for tensor in outputs}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted |= _read([node])
    return kept[::-1]


def _read(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names read by nodes and by the loop bodies in them."""
    names = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= _read(attribute.g.node)
    return names
