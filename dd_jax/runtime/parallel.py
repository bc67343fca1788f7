"""One step body on many devices: ``pmap`` (default) or ``jit`` with shardings. Both give the numbers of a single device.

Under both a device sees its own samples and nothing of the others but sums, so what it computes, holds and sends does not grow
with their number. (Left to divide a step of the whole batch by itself, the compiler gives each device every sample in places.)

The state is the same on every device and never stacked, so checkpoints do not know how many devices there were. With
several processes (``hosts.py``) the devices are those of all of them; each puts its own samples on its own.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dd_jax.config import Config
from dd_jax.types import Batch, Metrics, TrainState

AXIS = "batch"
"""Name of the device axis."""

T = TypeVar("T")

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def compile_step(step: Step, backend: str, devices: list[jax.Device] | None = None) -> Step:
    """``step`` mapped over ``devices`` (default: all local ones); the incoming state is donated. Compiled when first called.

    Args:
      step: a pure function of the state and of one device's share of the batch, which reduces over the axis :data:`AXIS`.
      backend: "pmap" | "jit", as ``config.train.backend``. The batch is what :func:`shard_batch` returns for the same backend.
    """
    devices = jax.local_devices() if devices is None else devices
    if backend == "pmap":
        return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, devices=devices, donate_argnums=0)
    everywhere, split = _shardings(devices)
    return _divided(step, everywhere, split, out=everywhere, donate_argnums=(0,))


def compile_step_now(step: Step, backend: str, state: TrainState, batch: Batch, devices: list[jax.Device]) -> Step:
    """:func:`compile_step`, compiled before there is a batch; a batch of other shapes is an error and no second compilation.

    Args:
      state: as :func:`replicate` returns it.
      batch: shapes and types of a whole batch, see ``loader.batch_shapes``.
    """
    _, split = _shardings(devices)

    def on_device(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = _stacked(x.shape, len(devices)) if backend == "pmap" else x.shape
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=split)

    return compile_step(step, backend, devices).lower(state, jax.tree.map(on_device, batch)).compile()


def compile_predict(predict: Callable[[TrainState, Batch], T], devices: list[jax.Device]) -> Callable[[TrainState, Batch], T]:
    """``predict`` mapped over devices of this process, whose number divides the batch: no device waits for another.

    It takes a state that :func:`replicate` or :func:`on_own_devices` put on the same devices, and a host batch.
    """
    everywhere, split = _shardings(devices)
    run = _divided(predict, everywhere, split, out=split)
    return lambda state, batch: run(state, jax.device_put(batch, split))


def shard_batch(batch: Batch, config: Config, devices: list[jax.Device] | None = None) -> Batch:
    """Sends each device its share of a host batch, without waiting; of several processes each has its part of the batch."""
    devices = jax.local_devices() if devices is None else devices
    _, split = _shardings(devices)
    if config.train.backend == "pmap":
        batch = jax.tree.map(lambda x: np.reshape(x, _stacked(x.shape, len(devices))), batch)
    if split.is_fully_addressable:
        return jax.device_put(batch, split)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)


def replicate(state: TrainState, devices: list[jax.Device] | None = None) -> TrainState:
    """Puts the state on every device; several processes must have the same one, which is not compared."""
    everywhere, _ = _shardings(jax.local_devices() if devices is None else devices)
    if everywhere.is_fully_addressable:
        return jax.device_put(state, everywhere)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(everywhere, np.array(x), np.shape(x)), state)


def on_own_devices(state: TrainState, devices: list[jax.Device]) -> TrainState:
    """What a replicated state is for this process alone, with its ``devices``; nothing is copied."""
    everywhere, _ = _shardings(devices)

    def own(x: jax.Array) -> jax.Array:
        return jax.make_array_from_single_device_arrays(x.shape, everywhere, [shard.data for shard in x.addressable_shards])

    return jax.tree.map(own, state)


def on_host(state: TrainState) -> TrainState:
    """The state as numpy arrays, one copy of each, safe from the donation of the next step."""
    return jax.tree.map(np.array, jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), state)))


def with_even_batches(config: Config, devices: list[jax.Device]) -> Config:
    """``config`` with ``eval.batch_size`` rounded up to a multiple of the devices, for :func:`compile_predict`."""
    batch_size = -(-config.eval.batch_size // len(devices)) * len(devices)
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, batch_size=batch_size))


def own_devices(devices: list[jax.Device]) -> list[jax.Device]:
    """Those of them that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def _divided(
    body: Callable,
    everywhere: NamedSharding,
    split: NamedSharding,
    out: NamedSharding,
    donate_argnums: tuple[int, ...] = (),
) -> Callable:
    """``body(state, batch)`` compiled for devices that have their own part of the batch each."""
    specs = everywhere.spec, split.spec
    mapped = jax.shard_map(body, mesh=split.mesh, in_specs=specs, out_specs=out.spec, check_vma=False)
    return jax.jit(mapped, in_shardings=(everywhere, split), out_shardings=out, donate_argnums=donate_argnums)


def _stacked(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    return count, shape[0] // count, *shape[1:]


def _shardings(devices: list[jax.Device]) -> tuple[NamedSharding, NamedSharding]:
    """On every device, and split over them: in their own order, which is that of ``pmap``."""
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))
