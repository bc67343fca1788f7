"""The training step and prediction of a config, compiled for devices."""

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Float

from dd_jax.config import Config
from dd_jax.method.predict_step import offsets_step, predict_step
from dd_jax.method.train_step import train_step
from dd_jax.runtime import parallel
from dd_jax.types import Batch, Predictions, TrainState


def frozen_at(config: Config, step: int) -> bool:
    """Whether teacher and pose network are fixed in this training step."""
    return 0 <= config.optim.freeze_step < step


def step_of(config: Config, frozen: bool) -> parallel.Step:
    """The training step of ``config`` as ``parallel`` takes it; ``frozen``: teacher and pose network are fixed."""
    return partial(train_step, config=config, axis=parallel.AXIS, frozen=frozen)


def compile_train_step(config: Config, frozen: bool, devices: list[jax.Device] | None = None) -> parallel.Step:
    """See :func:`parallel.compile_step`."""
    return parallel.compile_step(step_of(config, frozen), config.train.backend, devices)


def compile_train_step_now(
    config: Config, frozen: bool, state: TrainState, batch: Batch, devices: list[jax.Device]
) -> parallel.Step:
    """See :func:`parallel.compile_step_now`."""
    return parallel.compile_step_now(step_of(config, frozen), config.train.backend, state, batch, devices)


def compile_predict_step(config: Config, devices: list[jax.Device] | None = None) -> Callable[[TrainState, Batch], Predictions]:
    """(state, batch of two frames as the loader yields it) -> Predictions.

    ``devices`` (default: the first one) divide each batch evenly; the state is on all of them, see ``parallel.replicate``.
    """
    return parallel.compile_predict(partial(predict_step, config=config), jax.local_devices()[:1] if devices is None else devices)


def compile_offsets_step(
    config: Config, devices: list[jax.Device]
) -> Callable[[TrainState, Batch], Float[jax.Array, "b h w 3"]] | None:
    """(state, batch) -> output of the flow network for the previous frame; None without one. Compiled when first called."""
    return parallel.compile_predict(partial(offsets_step, config=config), devices) if config.model.flow else None
