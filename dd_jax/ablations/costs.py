"""What a training step of a row computes: counted, not measured, so that it does not hang on the machine or on its load."""

import dataclasses
import functools
import math
from collections.abc import Iterable

import jax
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr
from tqdm import tqdm

from dd_jax.ablations.runs import Run, computed, read_kept, write_kept
from dd_jax.checkpoints.run_folder import versions
from dd_jax.config import Config
from dd_jax.data.random_batch import random_batch
from dd_jax.method.train_step import create_state, train_step


@dataclasses.dataclass
class Cost:
    """Operations of a step, in GFLOP per sample; None for a step that the row's training does not have."""

    config: Config
    versions: dict[str, str]
    joint: float | None  # all networks learn
    frozen: float | None  # teacher and pose are fixed


def known(run: Run) -> Cost | None:
    """What was counted for the run's row, which its seeds share; None if nothing was, or for another config.

    Raises:
      ConfigError: the file is damaged.
    """
    cost = read_kept(run.cost_file, Cost)
    if cost is None or computed(_with_seed(cost.config, run.seed)) != computed(run.config):
        return None
    return cost


def complete(runs: Iterable[Run]) -> None:
    """Counts for the rows of ``runs`` what is not known yet; some seconds each.

    Raises:
      ConfigError: as :func:`known`.
    """
    missing = [run for run in {run.row: run for run in runs}.values() if known(run) is None]
    for run in tqdm(missing, unit="row", desc="operations of a step", disable=not missing):
        write_kept(run.cost_file, count(run.config))


def count(config: Config) -> Cost:
    """Traces the steps of a config; nothing is compiled or computed."""
    freeze = config.optim.freeze_step
    return Cost(
        config=config,
        versions=versions(),
        joint=step_gflop(config, frozen=False) if freeze != 0 else None,
        frozen=step_gflop(config, frozen=True) if 0 <= freeze < config.optim.steps else None,
    )


def _with_seed(config: Config, seed: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))


def step_gflop(config: Config, frozen: bool) -> float:
    """Operations of a step, divided by its samples, in GFLOP."""
    # In one piece: the parts of a batch compute the same, and their sum.
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, microbatches=1))
    body = functools.partial(train_step, config=config, axis=None, frozen=frozen)
    state = jax.eval_shape(lambda: create_state(config))
    step = jax.make_jaxpr(body)(state, random_batch(config.data, config.data.batch_size)).jaxpr
    used, _ = dce_jaxpr(step, [True] * len(step.outvars))
    return operations(used) / config.data.batch_size / 1e9


MOVES = {
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice",
    "dynamic_update_slice", "expand_dims", "gather", "iota", "name", "pad", "reshape", "rev", "slice", "split", "squeeze",
    "stack", "stop_gradient", "tile", "transpose", "unstack",
}  # fmt: skip
"""Primitives that compute nothing."""


def operations(program: core.Jaxpr) -> int:
    """How many additions, multiplications and the like a program makes: one for every number that it computes, two for every
    product that is summed in a convolution or a product of matrices, one for every number that a reduction takes in. Moving
    and converting numbers is free.

    A loop counts as often as it turns, or once where that depends on the data; of branches the dearest counts, or the one
    for CPUs where the platform decides.
    """
    return sum(_operations(equation) for equation in program.eqns)


def _operations(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    inputs, outputs = ([math.prod(x.aval.shape) for x in side] for side in (equation.invars, equation.outvars))
    inner = [operations(body) for body in core.jaxprs_in_params(params)]
    if name in MOVES:
        return 0
    if name == "conv_general_dilated":
        kernel, order = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec  # (out, in, *space)
        return 2 * outputs[0] * math.prod(kernel[i] for i in order[1:]) // math.prod(params["lhs_dilation"])
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * outputs[0] * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    if name.startswith("reduce_window"):
        return outputs[0] * math.prod(params["window_dimensions"])
    if name.startswith(("reduce_", "arg", "cum")):
        return inputs[0]
    if name.startswith("scatter"):
        return inputs[2]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "cond":
        platforms = params.get("branches_platforms")
        chosen = platforms and next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
        return max(inner) if chosen is None else inner[chosen]
    return sum(inner) if inner else sum(outputs)
