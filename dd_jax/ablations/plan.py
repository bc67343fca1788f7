"""Which rows of the table are run, and their configs."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from dd_jax.ablations.result import computed
from dd_jax.checkpoints import saved
from dd_jax.config import Config, ConfigError, OptimConfig, TrainConfig, from_dict, to_dict


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    title: str
    changes: Mapping[str, object]  # "section.field" -> value, over the config of the base
    control: str | None = None  # the row that it is compared with
    published: float | None = None  # abs_rel


def schedule(steps: int) -> dict[str, int]:
    """Config fields for a row of so many steps: the learning rate drops in the last quarter."""
    return {"optim.steps": steps, "optim.decay_steps": max(1, 3 * steps // 4)}


def fine_tuned(row: Row, name: str, base: str, steps: int) -> Config:
    """The config of the trained model ``base``, from which the run starts, with the row's changes.

    Teacher and pose network are fixed unless the row sets ``optim.freeze_step``. The last step is evaluated, so validation and
    selection of checkpoints are left out.

    Raises:
      ConfigError: no such model.
    """
    config = from_dict(_base(base)[0])
    config.name = name
    config.optim = OptimConfig(learning_rate=config.optim.learning_rate, freeze_step=0)
    own = config.train
    config.train = TrainConfig(backend=own.backend, microbatches=own.microbatches, remat=own.remat, init_from=base)
    config.train.log_every, config.train.eval_every, config.train.eval_frames = 20, 0, 8
    config.train.checkpoint_every, config.train.keep = 200, 1
    for flag, value in (schedule(steps) | row.changes).items():
        section, field = flag.split(".")
        setattr(getattr(config, section), field, value)
    return config


def digest_of(base: str) -> str:
    """Identifies the arrays of a trained model.

    Raises:
      ConfigError: no such model.
    """
    return _base(base)[1]


@functools.cache
def _base(place: str) -> tuple[dict, str]:
    restored = saved.restore_start("--base", place)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((restored.state.params, restored.state.batch_stats, restored.state.depth_range)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return to_dict(restored.config), digest.hexdigest()[:16]


def choose(rows: Mapping[str, Row], requested: Sequence[str]) -> list[str]:
    """The requested rows and their controls, each once and in the order of ``rows``; all rows if none is requested.

    Raises:
      ConfigError: a requested row does not exist.
    """
    if unknown := [row for row in requested if row not in rows]:
        raise ConfigError(f"--rows: unknown {', '.join(unknown)}; choose from {', '.join(rows)}")
    chosen = {*(requested or rows)}
    while missing := {rows[row].control for row in chosen} - chosen - {None}:
        chosen |= missing
    return [row for row in rows if row in chosen]


def leave_out(
    chosen: Sequence[str], rows: Mapping[str, Row], valid_config: Callable[[str], Config]
) -> tuple[dict[str, Config], list[str]]:
    """The rows that can run with their configs, and for each of the others a sentence that gives the reason.

    Args:
      valid_config: returns the config of a row; raises ConfigError if it is invalid.
    """
    kept, sentences = {}, []
    for row in chosen:
        control = rows[row].control
        try:
            config = valid_config(row)
            if control in kept and computed(config) | {"name": ""} == computed(kept[control]) | {"name": ""}:
                raise ConfigError(f"it computes the same as {control}, with which it would be compared")
        except ConfigError as error:
            sentences.append(f"row {row} is left out: {error}")
        else:
            kept[row] = config
    return kept, sentences
