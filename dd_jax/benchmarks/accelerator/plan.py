"""What is measured, in order of value, and how the time is shared."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dd_jax.benchmarks.accelerator import continuing, device, forms, loading, numeric_tests, peer, throughput
from dd_jax.benchmarks.accelerator.task import Row, Task
from dd_jax.config import Config, ConfigError, from_dict, to_dict


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One process.

    Attributes:
      minutes: that it needs at full size; it gets more if there is more.
      precision: of the networks; "": as the config says.
      environment: variables of the process.
    """

    name: str
    function: Callable[[Task], Iterator[Row]]
    minutes: float
    precision: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


MEASUREMENTS = (
    Measurement("device", device.describe, 0.25),
    Measurement("tests", numeric_tests.run, 2.0),
    Measurement("step_float32", throughput.steps, 1.5, "float32"),
    Measurement("step_bfloat16", throughput.steps, 1.25, "bfloat16"),
    Measurement("inference_float32", throughput.predictions, 0.5, "float32"),
    Measurement("inference_bfloat16", throughput.predictions, 0.5, "bfloat16"),
    Measurement("parts", throughput.step_parts, 0.5),
    Measurement("loader", loading.measure, 0.5),
    Measurement("forms", forms.measure, 1.0),
    Measurement("continuing", continuing.measure, 0.75),
    Measurement("memory", throughput.memory, 0.5),
    Measurement("peer", peer.measure, 0.5, environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),  # PyTorch needs memory too
    Measurement("devices", throughput.devices, 0.25),
)


def chosen(names: Sequence[str]) -> tuple[Measurement, ...]:
    """The measurements of these names, all if there are none; the devices are always described.

    Raises:
      ConfigError: an unknown name.
    """
    known = [measurement.name for measurement in MEASUREMENTS]
    if unknown := set(names) - set(known):
        raise ConfigError(f"--only={','.join(sorted(unknown))} is unknown: choose from {', '.join(known)}")
    return tuple(measurement for measurement in MEASUREMENTS if not names or measurement.name in {"device", *names})


def seconds_for_first(left: float, minutes: Sequence[float]) -> float | None:
    """Seconds for the first of the measurements that need so many minutes, if so many seconds are left; None if it does not fit.

    Those that fit, in their order, share all that is left.
    """
    fitting: list[float] = []
    for needed in minutes:
        if 60 * (sum(fitting) + needed) <= left:
            fitting.append(needed)
    return left * minutes[0] / sum(fitting) if 60 * minutes[0] <= left else None


TINY_TIME = 0.2
"""Share of the minutes that a measurement needs when tiny."""


def tiny(config: Config, measurements: Sequence[Measurement]) -> tuple[Config, tuple[Measurement, ...], dict[str, Any]]:
    """Small images, narrow networks, less time, and the fields of :class:`task.Task` for few batch sizes and tests."""
    config = from_dict(to_dict(config))
    config.data.height, config.data.width, config.data.batch_size = 64, 96, 2
    config.model.width, config.cost_volume.bins = 8, 8
    shorter = tuple(dataclasses.replace(measurement, minutes=TINY_TIME * measurement.minutes) for measurement in measurements)
    return config, shorter, {"batch_sizes": (1, 2), "test_folders": (("losses/test_ssim.py",),)}
