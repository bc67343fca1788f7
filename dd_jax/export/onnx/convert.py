"""Conversion of a traced program, primitive by primitive."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Literal

from dd_jax.export.onnx import arrays, elementwise, indexing, layers, loops
from dd_jax.export.onnx.arrays import shape_of
from dd_jax.export.onnx.graph import SMALL, Graph, Tensor, common_shape, constant, unsupported

RULES = arrays.RULES | elementwise.RULES | indexing.RULES | layers.RULES | loops.RULES

INNER = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
}
"""Primitives that call an inner program, and the parameter that holds it; derivative rules are dropped."""


def convert(
    program: ClosedJaxpr, inputs: Sequence[str], outputs: Sequence[str], about: str, batch: Any = None
) -> onnx.ModelProto:
    """The ONNX model of a traced function.

    Args:
      program: ``jax.jit(function).trace(...).jaxpr``; its constants become the model's weights.
      inputs, outputs: names, in the program's order.
      about: the model's description.
      batch: the symbolic size of the inputs' first axes, see ``jax.export.symbolic_shape``; None: every size is known.

    Raises:
      ConfigError: the program has a primitive without a rule.
    """
    g = Converter(batch)
    arguments = [g.input(name, shape_of(v), v.aval.dtype) for name, v in zip(inputs, program.jaxpr.invars, strict=True)]
    found = g.run(program.jaxpr, program.consts, arguments)
    whole = [g.full(x, shape_of(variable)) for x, variable in zip(found, program.jaxpr.outvars)]
    return g.model(arguments, dict(zip(outputs, whole, strict=True)), about)


class Converter(Graph):
    """A graph to which programs are added."""

    def run(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Tensor]) -> list[Tensor]:
        """Adds a program; its outputs may be smaller than traced, see :class:`Tensor`."""
        known = dict(zip(jaxpr.constvars, map(constant, consts))) | dict(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Tensor:
            return constant(np.asarray(variable.val, variable.aval.dtype)) if isinstance(variable, Literal) else known[variable]

        for eqn in jaxpr.eqns:
            found = self._apply(eqn, [read(variable) for variable in eqn.invars])
            known.update(zip(eqn.outvars, found, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _apply(self, eqn: Any, inputs: list[Tensor]) -> list[Tensor]:
        name = eqn.primitive.name
        if name in INNER:
            inner = eqn.params[INNER[name]]
            return self.run(inner.jaxpr, inner.consts, inputs)
        if name == "call_hi_primitive":  # later versions of JAX: an operation that expands itself
            high = eqn.params["_prim"]
            flat = jax.make_jaxpr(lambda *leaves: jax.tree.leaves(high.expand(*jax.tree.unflatten(high.in_tree, leaves))))
            inner = flat(*(variable.aval for variable in eqn.invars))
            return self.run(inner.jaxpr, inner.consts, inputs)
        if name == "platform_index":
            return [constant(np.int32(eqn.params["platforms"].index(None)))]
        if name == "cond" and inputs[0].value is not None:  # variants per platform: take the default
            inner = eqn.params["branches"][int(inputs[0].value)]
            return self.run(inner.jaxpr, inner.consts, inputs[1:])
        if name not in RULES:
            raise unsupported(f"the operation {name!r}")
        folded = _fold(eqn, inputs)
        if folded is not None:
            return folded
        found = RULES[name](self, eqn, *inputs)
        return found if isinstance(found, list) else [found]


def _fold(eqn: Any, inputs: list[Tensor]) -> list[Tensor] | None:
    """Constant folding with JAX; None if an input is not constant, or the result would be too large for the file."""
    name = eqn.primitive.name
    if name in loops.RULES or name == "broadcast_in_dim" or not inputs or any(x.value is None for x in inputs):
        return None
    if name in elementwise.RULES:
        shapes = [common_shape(*(x.shape for x in inputs))] * len(inputs)
        if name == "convert_element_type":
            shapes = [inputs[0].shape]
        sizes = shapes[:1]
    else:
        shapes = [shape_of(variable) for variable in eqn.invars]
        sizes = [shape_of(variable) for variable in eqn.outvars]
    if not all(isinstance(size, int) for shape in (*shapes, *sizes) for size in shape):
        return None
    given = sum(x.value.nbytes for x in inputs)
    if 4 * sum(int(np.prod(shape)) for shape in sizes) > max(SMALL, 2 * given):
        return None
    values = [jax.numpy.asarray(np.broadcast_to(x.value, shape), x.dtype) for x, shape in zip(inputs, shapes)]
    found = eqn.primitive.bind(*values, **eqn.params)
    return [constant(value) for value in (found if eqn.primitive.multiple_results else [found])]
