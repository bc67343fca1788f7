"""One step on many devices: ``pmap`` (default) or ``jit`` with ``shard_map``. Both give the numbers of a single device.

In both, a device sees only its own samples and sums over all devices, so its computation, memory and communication do not grow
with the number of devices. (Automatic partitioning of a step over the whole batch gives each device all samples in places.)

The state is replicated and never stacked, so checkpoints do not depend on the number of devices. With several processes
(``hosts.py``) the devices are those of all processes; each process puts its samples on its own devices.
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
    """``step`` mapped over ``devices`` (default: all local ones); the incoming state is donated. Compiled at the first call.

    Args:
      step: a pure function of the state and the device's share of the batch, which reduces over the axis :data:`AXIS`.
      backend: "pmap" | "jit", as ``config.train.backend``. The batch is from :func:`shard_batch` for the same backend.
    """
    devices = jax.local_devices() if devices is None else devices
    if backend == "pmap":
        return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, devices=devices, donate_argnums=0)
    everywhere, split = _shardings(devices)
    return _divided(step, everywhere, split, out=everywhere, donate_argnums=(0,))


def compile_step_now(step: Step, backend: str, state: TrainState, batch: Batch, devices: list[jax.Device]) -> Step:
    """:func:`compile_step`, compiled ahead of time; a batch of other shapes is an error instead of a recompilation.

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
    """``predict`` mapped over devices of this process, whose number divides the batch; without communication.

    Takes a state that :func:`replicate` or :func:`on_own_devices` put on the same devices, and a host batch.
    """
    everywhere, split = _shardings(devices)
    run = _divided(predict, everywhere, split, out=split)
    return lambda state, batch: run(state, jax.device_put(batch, split))


def shard_batch(batch: Batch, config: Config, devices: list[jax.Device] | None = None) -> Batch:
    """Sends each device its share of a host batch, asynchronously; with several processes, each passes its part of the batch."""
    devices = jax.local_devices() if devices is None else devices
    _, split = _shardings(devices)
    if config.train.backend == "pmap":
        batch = jax.tree.map(lambda x: np.reshape(x, _stacked(x.shape, len(devices))), batch)
    if split.is_fully_addressable:
        return jax.device_put(batch, split)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)


def own_samples(batch: Batch, config: Config) -> Batch:
    """This process's samples of a batch that :func:`shard_batch` divided, in NumPy and in their order."""

    def own(x: jax.Array) -> np.ndarray:
        shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        whole = np.concatenate([jax.device_get(shard.data) for shard in shards])
        return whole.reshape(-1, *whole.shape[2:]) if config.train.backend == "pmap" else whole

    return jax.tree.map(own, batch)


def replicate(state: TrainState, devices: list[jax.Device] | None = None) -> TrainState:
    """Copies the state to every device; it must be the same in all processes, which is not checked."""
    everywhere, _ = _shardings(jax.local_devices() if devices is None else devices)
    if everywhere.is_fully_addressable:
        return jax.device_put(state, everywhere)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(everywhere, np.array(x), np.shape(x)), state)


def on_own_devices(state: TrainState, devices: list[jax.Device]) -> TrainState:
    """View of a replicated state on the ``devices`` of this process; nothing is copied."""
    everywhere, _ = _shardings(devices)

    def own(x: jax.Array) -> jax.Array:
        return jax.make_array_from_single_device_arrays(x.shape, everywhere, [shard.data for shard in x.addressable_shards])

    return jax.tree.map(own, state)


def on_host(state: TrainState) -> TrainState:
    """The state as NumPy copies, which the donation in the next step cannot overwrite."""
    return jax.tree.map(np.array, jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), state)))


def with_even_batches(config: Config, devices: list[jax.Device]) -> Config:
    """``config`` with ``eval.batch_size`` rounded up to a multiple of the devices, for :func:`compile_predict`."""
    batch_size = -(-config.eval.batch_size // len(devices)) * len(devices)
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, batch_size=batch_size))


def own_devices(devices: list[jax.Device]) -> list[jax.Device]:
    """Those of ``devices`` that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def _divided(
    body: Callable,
    everywhere: NamedSharding,
    split: NamedSharding,
    out: NamedSharding,
    donate_argnums: tuple[int, ...] = (),
) -> Callable:
    """``body(state, batch)`` compiled with ``shard_map``: each device has its part of the batch."""
    specs = everywhere.spec, split.spec
    mapped = jax.shard_map(body, mesh=split.mesh, in_specs=specs, out_specs=out.spec, check_vma=False)
    return jax.jit(mapped, in_shardings=(everywhere, split), out_shardings=out, donate_argnums=donate_argnums)


def _stacked(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    return count, shape[0] // count, *shape[1:]


def _shardings(devices: list[jax.Device]) -> tuple[NamedSharding, NamedSharding]:
    """Replicated, and split over the devices in their given order, as ``pmap`` does."""
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))
