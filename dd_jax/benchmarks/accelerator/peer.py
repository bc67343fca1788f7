"""ManyDepth in PyTorch on the same device."""

from collections.abc import Iterator

import jax

from dd_jax.benchmarks import pytorch_peer, step
from dd_jax.benchmarks.accelerator.task import Row, Task
from dd_jax.data.random_batch import random_batch
from dd_jax.method.train_step import create_state

REPEATS = 5


def measure(task: Task) -> Iterator[Row]:
    """Inference of one frame; forward and backward passes of the networks with ``data.batch_size`` samples.

    Raises:
      ConfigError: it is not installed, or the config has other networks.
    """
    config, device = task.config, jax.local_devices()[:1]
    pytorch_peer.check(config)
    yield {"what": "versions", "note": pytorch_peer.versions()}
    batch = random_batch(config.data, config.data.batch_size)
    other = pytorch_peer.Peer(config, batch)
    state = jax.device_put(create_state(config), device[0])
    found = step.measure_inference(config, state, REPEATS * step.FRAMES_PER_ROUND, other.inference())
    yield {"what": "inference, batch 1"} | found["peer_inference"]
    found = step.measure_step(config, state, batch, device, REPEATS, True, other.training())
    for name, row in found.get("peer_training", {}).items():
        yield {"what": f"forward and backward: {name}"} | row
    if "peer_training" not in found:
        yield {"what": "forward and backward", "note": "not compared: the profiler records no instructions on this device"}
