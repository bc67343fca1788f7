"""Training steps that were skipped because they were not finite, on disk: the batch, and the networks to run it again.

``WORKDIR/skipped/step_000123.safetensors``; a further process of the run writes its samples to
``step_000123.process1.safetensors``.
"""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dd_jax import config as configs
from dd_jax.checkpoints import saved
from dd_jax.config import Config, ConfigError
from dd_jax.runtime import files, versions
from dd_jax.types import Batch, TrainState

FOLDER = "skipped"

MOST = 3
"""Steps kept per run: the first ones, because later ones often follow from them."""

LARGEST = 2**28
"""Bytes of the networks up to which they are saved with the batch."""


@dataclasses.dataclass(frozen=True)
class SkippedStep:
    """One skipped step, read back."""

    step: int
    batch: Batch  # the global batch, or the shares that were found
    names: list[str]  # of the samples of the global batch, as in the split file
    shares: str  # "" if the whole batch was found
    state: TrainState | None  # networks and depth range, without optimiser; None if too large
    updates: int  # by which the networks are newer than those of the step
    config: Config
    versions: dict[str, str]


def clear(workdir: Path) -> None:
    """Deletes the saved steps of a former run in the same folder."""
    for path in (workdir / FOLDER).glob("step_*.safetensors"):
        path.unlink()


def has_room(workdir: Path, step: int) -> bool:
    """Whether another step may be saved; one that is repeated replaces itself."""
    return len({path.name.partition(".")[0] for path in (workdir / FOLDER).glob("step_*")} - {_name(step)}) < MOST


def write(
    workdir: Path, step: int, batch: Batch, names: list[str], state: TrainState | None, updates: int, config: Config,
    process: tuple[int, int] = (0, 1),
) -> Path:  # fmt: skip
    """Saves a skipped step; returns the file.

    Args:
      batch: this process's samples, in NumPy.
      names: of the samples of all processes.
      state: whose networks are saved, unless they are larger than :data:`LARGEST`; None in all processes but the first.
      updates: optimiser updates between the step and ``state``.
      process: index of this process, and their number.

    Raises:
      OSError: the file cannot be written.
    """
    arrays = {f"batch/{name}": value for name, value in vars(batch).items() if value is not None}
    if state is not None:
        networks = {name: np.asarray(value) for name, value in saved.arrays_of(state).items()}
        arrays |= networks if sum(value.nbytes for value in networks.values()) <= LARGEST else {}
    about = {
        "step": step,
        "updates": updates,
        "processes": process[1],
        "names": names,
        "config": configs.to_dict(config),
        "versions": versions.versions(),
    }
    path = _place(workdir, step, process[0])
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    files.replace(path, save(arrays, metadata={name: json.dumps(value) for name, value in about.items()}))
    return path


def read(workdir: Path, step: int) -> SkippedStep | None:
    """A saved step of a run; None if it was not saved.

    Raises:
      ConfigError: a file is damaged.
    """
    path = _place(workdir, step, 0)
    if not path.is_file():
        return None
    about, arrays = _read(path)
    count, shares = about["processes"], [arrays]
    for process in range(1, count):
        with contextlib.suppress(FileNotFoundError):
            shares.append(_read(_place(workdir, step, process))[1])
    fields = [name for name in arrays if name.startswith("batch/")]
    batch = {name.removeprefix("batch/"): np.concatenate([share[name] for share in shares]) for name in fields}
    networks = {name: value for name, value in arrays.items() if name not in fields}
    config = configs.from_dict(about["config"])
    return SkippedStep(
        step=about["step"],
        batch=Batch(**batch),
        names=about["names"],
        shares="" if len(shares) == count else f"{len(shares)} of {count}",
        state=saved.state_from(networks, config, step - 1, f"{path} does not hold its networks") if networks else None,
        updates=about["updates"],
        config=config,
        versions=about["versions"],
    )


def _name(step: int) -> str:
    return f"step_{step:06d}"


def _place(workdir: Path, step: int, process: int) -> Path:
    return workdir / FOLDER / (_name(step) + (f".process{process}" if process else "") + ".safetensors")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Facts and arrays of a file."""
    try:
        with safe_open(path, "np") as file:
            about = {name: json.loads(value) for name, value in file.metadata().items()}
            return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): delete it") from error
