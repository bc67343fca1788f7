"""A program operation by operation, to find the one that first gives a NaN."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

PACKAGE = str(Path(__file__).parents[1])


def first_nan(function: Callable[..., Any], *arguments: Any) -> str | None:
    """The first operation of ``function`` with a NaN in its result and none in its operands, in words; None if there is none.

    Loops and branches count as one operation. Every operation is compiled on its own, so this takes minutes for a training step.
    """
    program = jax.make_jaxpr(function)(*arguments)
    return next(_run(program.jaxpr, program.consts, jax.tree.leaves(arguments)), None)


def _run(program: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> Iterator[str]:
    """Yields the operations that first give a NaN; the generator's value is the program's results."""
    values = dict(zip(program.constvars, constants)) | dict(zip(program.invars, arguments))

    def read(place: Any) -> Any:
        return place.val if isinstance(place, Literal) else values[place]

    for operation in program.eqns:
        operands = [read(place) for place in operation.invars]
        inner = next((x for x in operation.params.values() if isinstance(x, ClosedJaxpr | Jaxpr)), None)
        if inner is not None and operation.primitive.name not in ("scan", "while", "cond"):
            closed = isinstance(inner, ClosedJaxpr)
            results = yield from _run(inner.jaxpr if closed else inner, inner.consts if closed else (), operands)
        else:
            results = operation.primitive.bind(*operands, **operation.primitive.get_bind_params(operation.params))
            results = results if operation.primitive.multiple_results else [results]
            if any(map(_has_nan, results)) and not any(map(_has_nan, operands)):
                yield _describe(operation)
        values |= dict(zip(operation.outvars, results))
    return [read(place) for place in program.outvars]


def _has_nan(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating) and bool(jnp.isnan(x).any())


def _describe(operation: JaxprEqn) -> str:
    frames = operation.source_info.traceback.frames if operation.source_info.traceback else ()
    own = next((frame for frame in frames if frame.file_name.startswith(PACKAGE)), None)
    where = f" in {own.function_name} ({Path(own.file_name).relative_to(Path(PACKAGE).parent)}:{own.line_num})" if own else ""
    scope = str(operation.source_info.name_stack)
    return f"{operation.primitive.name}{where}" + (f", part {scope}" if scope else "")
