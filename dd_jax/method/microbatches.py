"""A batch in parts that are computed one after another, to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.types import Batch


def mean_over_microbatches(function: Callable[[Batch], Any], batch: Batch, count: int) -> Any:
    """Mean of ``function`` over ``count`` parts of the batch; ``function(batch)`` itself where ``count`` is 1.

    A part takes every ``count``-th sample of every device, so that it is the same set on any number of devices. All parts start
    from the same state: batch statistics and depth range move once per step, by the mean of the parts.
    """
    if count == 1:
        return function(batch)

    def add(sums: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(lambda total, x: total + x / count, sums, function(part)), None

    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), batch)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts)))
    return jax.lax.scan(add, zeros, parts)[0]
