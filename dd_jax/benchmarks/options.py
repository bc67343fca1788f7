"""Time of a training step with other options, in alternation with the config as it is."""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dd_jax.benchmarks import programs, step
from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.runtime import command_line

AS_CONFIGURED = "as configured"


def benchmark(config: Config, variants: Sequence[str], batch_size: int, repeats: int) -> dict[str, Any]:
    """Measures and prints; returns the values of the last line. One device.

    Args:
      variants: ``SECTION.FIELD=VALUE`` each, several separated by commas. With ``optim.freeze_step=0`` the step is that after
        teacher and pose network are fixed.

    Raises:
      ConfigError: an invalid variant; raised before anything is compiled.
    """
    config.data.batch_size = batch_size
    configs = {AS_CONFIGURED: config} | {variant: changed(config, variant) for variant in variants}
    for variant in configs.values():
        validate(variant, 1)
    compiled = {name: programs.training_step(variant, jax.local_devices()[:1]) for name, variant in configs.items()}
    rounds = step.alternate({name: program.run for name, program in compiled.items()}, repeats)
    result = {
        name: {
            "step_seconds": float(np.median(rounds[name])),
            "ratio": step.ratio(rounds, name, AS_CONFIGURED),
            "compile_seconds": program.compile_seconds,
        }
        for name, program in compiled.items()
    }
    data = config.data
    print(f"{config.name}: {data.height}x{data.width}, batch {batch_size}, median of {repeats}")
    print(f"{'step, s':>9} {'ratio':>6} {'compiled in, s':>15}")
    for name, own in result.items():
        print(f"{own['step_seconds']:9.3f} {own['ratio']:6.2f} {own['compile_seconds']:15.0f}  {name}")
    print(json.dumps(result))
    return result


def changed(config: Config, variant: str) -> Config:
    """``config`` with the fields of a variant.

    Raises:
      ConfigError: a field does not exist, or its value has another type.
    """
    for change in variant.split(","):
        field, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(f"--against={variant} must be SECTION.FIELD=VALUE, several separated by commas")
        config = command_line.with_field(config, field, value)
    return config
