"""scripts/train.py with a few arrays and operations in place of the networks: a run takes seconds.

The step moves every number of the state by an amount that depends on all pixels and seeds of its batch, so a batch that is lost,
repeated or changed shows in every array.
"""

import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.method import compiled_steps
from dd_jax.report import Logger
from dd_jax.training import train as train_module
from dd_jax.types import Batch, Metrics, TrainState


def create_state(*_: Any) -> TrainState:
    """A state with all parts of a real one."""
    draw = np.random.default_rng(0)
    params = {"teacher": {"convs": {0: {"kernel": draw.normal(size=(3, 3, 8, 16))}}}, "pose": {"bias": draw.normal(size=16)}}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    statistics = {"teacher": {"mean": jnp.full(16, 1 / 3)}, "pose": {}}
    return TrainState(jnp.int32(0), params, statistics, optax.adam(1e-3).init(params), jnp.array([0.1, 10.0]))


@jax.jit
def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """The state moved by the batch."""
    place = jnp.arange(batch.images.size, dtype=jnp.float32).reshape(batch.images.shape)
    seen = jnp.mean(batch.images * jnp.cos(place)) + jnp.mean(jnp.sin(batch.seed.astype(jnp.float32)))

    def moved(x: jax.Array) -> jax.Array:
        return x + 1e-3 * jnp.sin(seen + x) if jnp.issubdtype(x.dtype, jnp.floating) else x

    networks = {name: jax.tree.map(moved, getattr(state, name)) for name in ("params", "batch_stats", "opt_state")}
    return state.replace(step=state.step + 1, **networks), {"total": seen, "skipped": jnp.float32(0)}


def score(*arguments: Any) -> float:
    """In place of the validation: a number that depends on the parameters."""
    state, (number, logger) = next(x for x in arguments if isinstance(x, TrainState)), arguments[-2:]
    value = float(np.mean([np.mean(np.abs(x)) for x in jax.tree.leaves(jax.device_get(state.params))]))
    assert isinstance(logger, Logger)
    logger.log_validation(number, {"single_frame": {"all": {"abs_rel": value}}})
    return value


def install(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Replaces state, step and validation of :func:`dd_jax.training.train.train`."""
    put(train_module, "create_state", create_state)
    put(compiled_steps, "compile_train_step_now", lambda *_: step)
    put(train_module, "validation_score", score)


def serve() -> None:
    """Starts a run for each line of stdin, its arguments and log; prints its process and its exit status. Returns in the run.

    The processes are forked when all modules are loaded, which takes longer than such a run.
    """
    from tensorboardX import SummaryWriter  # noqa: F401

    from dd_jax.runtime import command_line  # noqa: F401

    for line in sys.stdin:
        arguments, log = json.loads(line)
        process = os.fork()
        if not process:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for output in (1, 2):
                os.dup2(file, output)
            sys.argv[1:] = arguments
            return
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    sys.exit()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    install()
    script = Path(__file__).parents[1] / "scripts/train.py"
    sys.argv[0] = str(script)
    runpy.run_path(str(script), run_name="__main__")
