"""One step body on many devices: ``pmap`` (default) or ``jit`` with shardings. Both give the numbers of a single device.

The state is the same on every device and never stacked, so checkpoints do not know how many devices there were.
"""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dd_jax.config import Config
from dd_jax.train_step import train_step
from dd_jax.types import Batch, Metrics, TrainState

AXIS = "batch"

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def compile_step(config: Config, frozen: bool, devices: list[jax.Device] | None = None) -> Step:
    """The training step mapped over ``devices`` (default: all local ones); the incoming state is donated.

    The batch it takes is what :func:`shard_batch` returns for the same config and devices.
    """
    devices = jax.local_devices() if devices is None else devices
    if config.train.backend == "pmap":
        body = partial(train_step, config=config, axis=AXIS, frozen=frozen)
        return jax.pmap(body, AXIS, in_axes=(None, 0), out_axes=None, devices=devices, donate_argnums=0)
    everywhere, split = _shardings(devices)
    body = partial(train_step, config=config, axis=None, frozen=frozen)
    return jax.jit(body, in_shardings=(everywhere, split), out_shardings=everywhere, donate_argnums=0)


def shard_batch(batch: Batch, config: Config, devices: list[jax.Device] | None = None) -> Batch:
    """Sends each device its share of a host batch, without waiting."""
    devices = jax.local_devices() if devices is None else devices
    _, split = _shardings(devices)
    if config.train.backend == "pmap":
        batch = jax.tree.map(lambda x: np.reshape(x, (len(devices), x.shape[0] // len(devices), *x.shape[1:])), batch)
    return jax.device_put(batch, split)


def replicate(state: TrainState, devices: list[jax.Device] | None = None) -> TrainState:
    """Puts the state on every device."""
    everywhere, _ = _shardings(jax.local_devices() if devices is None else devices)
    return jax.device_put(state, everywhere)


def _shardings(devices: list[jax.Device]) -> tuple[NamedSharding, NamedSharding]:
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))


def on_host(state: TrainState) -> TrainState:
    """The state as numpy arrays, one copy of each, safe from the donation of the next step."""
    return jax.tree.map(lambda x: np.array(x.addressable_data(0)), state)
