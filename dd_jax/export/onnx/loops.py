"""``scan`` and ``while`` loops as ONNX's ``Loop``."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dd_jax.export.onnx.arrays import shape_of
from dd_jax.export.onnx.graph import Tensor, constant, unsupported

if TYPE_CHECKING:
    from dd_jax.export.onnx.convert import Converter


def scan(g: "Converter", eqn: Any, *inputs: Tensor) -> list[Tensor]:
    """A known number of iterations. Arrays that are read or written row by row differ in rank from those that are carried."""
    params, inner = eqn.params, eqn.params["jaxpr"].jaxpr
    if params["reverse"]:
        raise unsupported("a reversed scan")
    rows = sum(whole.aval.ndim > row.aval.ndim for whole, row in zip(eqn.invars, inner.invars))
    carried_count = sum(whole.aval.ndim == row.aval.ndim for whole, row in zip(eqn.outvars, inner.outvars))
    first_row = len(inputs) - rows
    consts = first_row - carried_count
    inputs = [*inputs[:consts], *(g.full(x, shape_of(variable)) for x, variable in zip(inputs[consts:], eqn.invars[consts:]))]

    def iteration(step: Tensor, going: Tensor, carried: Sequence[Tensor]) -> list[Tensor]:
        now = [g.add("Gather", x, step, shape=x.shape[1:], dtype=x.dtype, axis=0) for x in inputs[first_row:]]
        return [going, *_run(g, params["jaxpr"], [*inputs[:consts], *carried, *now])]

    count = g.squeeze(g.size(params["length"]), [0])
    return _loop(g, eqn, count, constant(np.array(True)), inputs[consts:first_row], iteration)


def while_loop(g: "Converter", eqn: Any, *inputs: Tensor) -> list[Tensor]:
    """Iterates until a condition on the carried arrays fails."""
    params = eqn.params
    cond_consts, first = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    start = [g.full(x, shape_of(variable)) for x, variable in zip(inputs[first:], eqn.invars[first:])]

    def condition(carried: Sequence[Tensor]) -> Tensor:
        return _run(g, params["cond_jaxpr"], [*inputs[:cond_consts], *carried])[0]

    def iteration(step: Tensor, going: Tensor, carried: Sequence[Tensor]) -> list[Tensor]:
        found = _run(g, params["body_jaxpr"], [*inputs[cond_consts:first], *carried])
        return [condition(found), *found]

    return _loop(g, eqn, None, condition(start), start, iteration)


def _loop(
    g: "Converter", eqn: Any, count: Tensor | None, going: Tensor, start: Sequence[Tensor], iteration: Callable[..., list[Tensor]]
) -> list[Tensor]:
    """ONNX's ``Loop``: at most ``count`` iterations, while ``going``; the outputs of an iteration begin with ``going``."""
    number, on = Tensor((), np.dtype(np.int64), g.new_name()), Tensor((), np.dtype(bool), g.new_name())
    carried = [Tensor(x.shape, x.dtype, g.new_name()) for x in start]
    body = g.body([number, on, *carried], lambda: iteration(number, on, carried))
    outputs = [(shape_of(variable), variable.aval.dtype) for variable in eqn.outvars]
    return g.add_many("Loop", [count, going, *start], outputs, body=body)


def _run(g: "Converter", closed: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of an inner program, at their full shapes."""
    found = g.run(closed.jaxpr, closed.consts, inputs)
    return [g.full(x, shape_of(variable)) for x, variable in zip(found, closed.jaxpr.outvars)]


RULES: dict[str, Callable[..., list[Tensor]]] = {"scan": scan, "while": while_loop}
