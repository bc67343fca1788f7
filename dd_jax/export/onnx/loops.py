"""Loops: over the bins of the cost volume, over the samples of a batch, and while something is left to do."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dd_jax.export.onnx.arrays import shape_of
from dd_jax.export.onnx.graph import Tensor, constant, unsupported

if TYPE_CHECKING:
    from dd_jax.export.onnx.convert import Converter


def scan(g: "Converter", eqn: Any, *inputs: Tensor) -> list[Tensor]:
    """A known number of turns: some arrays are handed on, others are read and written row by row, which shows in their rank."""
    params, inner = eqn.params, eqn.params["jaxpr"].jaxpr
    if params["reverse"]:
        raise unsupported("a loop that runs backwards")
    rows = sum(whole.aval.ndim > row.aval.ndim for whole, row in zip(eqn.invars, inner.invars))
    handed_on = sum(whole.aval.ndim == row.aval.ndim for whole, row in zip(eqn.outvars, inner.outvars))
    carries = len(inputs) - rows
    consts = carries - handed_on
    inputs = [*inputs[:consts], *(g.full(x, shape_of(variable)) for x, variable in zip(inputs[consts:], eqn.invars[consts:]))]

    def one_turn(turn: Tensor, going: Tensor, carried: Sequence[Tensor]) -> list[Tensor]:
        now = [g.add("Gather", x, turn, shape=x.shape[1:], dtype=x.dtype, axis=0) for x in inputs[carries:]]
        return [going, *_run(g, params["jaxpr"], [*inputs[:consts], *carried, *now])]

    turns = g.squeeze(g.size(params["length"]), [0])
    return _loop(g, eqn, turns, constant(np.array(True)), inputs[consts:carries], one_turn)


def while_loop(g: "Converter", eqn: Any, *inputs: Tensor) -> list[Tensor]:
    """Turns until a condition of what is handed on fails."""
    params = eqn.params
    asked, read = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    start = [g.full(x, shape_of(variable)) for x, variable in zip(inputs[read:], eqn.invars[read:])]

    def goes_on(carried: Sequence[Tensor]) -> Tensor:
        return _run(g, params["cond_jaxpr"], [*inputs[:asked], *carried])[0]

    def one_turn(turn: Tensor, going: Tensor, carried: Sequence[Tensor]) -> list[Tensor]:
        found = _run(g, params["body_jaxpr"], [*inputs[asked:read], *carried])
        return [goes_on(found), *found]

    return _loop(g, eqn, None, goes_on(start), start, one_turn)


def _loop(
    g: "Converter", eqn: Any, turns: Tensor | None, going: Tensor, start: Sequence[Tensor], one_turn: Callable[..., list[Tensor]]
) -> list[Tensor]:
    """ONNX's one loop, for a number of ``turns`` and as long as it is ``going``; what a turn returns begins with the latter."""
    number, on = Tensor((), np.dtype(np.int64), g.new_name()), Tensor((), np.dtype(bool), g.new_name())
    carried = [Tensor(x.shape, x.dtype, g.new_name()) for x in start]
    body = g.body([number, on, *carried], lambda: one_turn(number, on, carried))
    outputs = [(shape_of(variable), variable.aval.dtype) for variable in eqn.outvars]
    return g.add_many("Loop", [turns, going, *start], outputs, body=body)


def _run(g: "Converter", closed: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The whole outputs of an inner program."""
    found = g.run(closed.jaxpr, closed.consts, inputs)
    return [g.full(x, shape_of(variable)) for x, variable in zip(found, closed.jaxpr.outvars)]


RULES: dict[str, Callable[..., list[Tensor]]] = {"scan": scan, "while": while_loop}
