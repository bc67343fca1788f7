"""A program as hardware with TF32 computes it, simulated on a CPU, and its products one by one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

import dd_jax

PRODUCTS = ("dot_general", "conv_general_dilated")
"""Primitives whose float32 inputs are rounded by default on recent GPUs and TPUs."""

INLINED = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
PACKAGE = Path(dd_jax.__file__).parent


def is_exact(product: JaxprEqn) -> bool:
    """Whether a product asks for float32 whatever the default is."""
    precision = product.params["precision"]
    return precision is not None and set(precision) == {jax.lax.Precision.HIGHEST}


def products(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All products of a program, those in inner programs included."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in PRODUCTS:
            yield eqn
        for inner in _inner(eqn):
            yield from products(inner)


def file_of(eqn: JaxprEqn) -> str:
    """The file of the package that an operation is written in, relative to the package; empty if that is not known."""
    frames = eqn.source_info.traceback.frames
    files = (Path(frame.file_name) for frame in frames)
    return next((str(file.relative_to(PACKAGE)) for file in files if file.is_relative_to(PACKAGE)), "")


def as_tf32(function: Callable) -> Callable:
    """``function`` with the inputs of products that do not ask for more rounded to the ten bits of TF32's mantissa."""

    def run(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        return jax.tree.unflatten(jax.tree.structure(shapes), _evaluate(closed, jax.tree.leaves(args)))

    return run


def _evaluate(closed: ClosedJaxpr, args: list) -> list:
    known = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *args], strict=True))
    for eqn in closed.jaxpr.eqns:
        values = [variable.val if isinstance(variable, Literal) else known[variable] for variable in eqn.invars]
        name = eqn.primitive.name
        if name in INLINED:
            found = _evaluate(eqn.params[INLINED[name]], values)
        else:
            if name in PRODUCTS and not is_exact(eqn):
                values = [_rounded(value) for value in values]
            found = eqn.primitive.bind(*values, **jax.tree.map(_reduced, eqn.params, is_leaf=_is_program))
        known.update(zip(eqn.outvars, found if eqn.primitive.multiple_results else [found], strict=True))
    return [variable.val if isinstance(variable, Literal) else known[variable] for variable in closed.jaxpr.outvars]


def _rounded(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10) if x.dtype == jnp.float32 else x


def _is_program(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr)


def _reduced(value: Any) -> Any:
    return jax.make_jaxpr(lambda *args: _evaluate(value, args))(*value.in_avals) if _is_program(value) else value


def _inner(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: isinstance(x, (ClosedJaxpr, Jaxpr))):
        if isinstance(value, (ClosedJaxpr, Jaxpr)):
            yield value.jaxpr if isinstance(value, ClosedJaxpr) else value
