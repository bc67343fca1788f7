"""Which rows of a table are run: those that are asked for, as far as they can work and say something."""

from collections.abc import Callable, Sequence
from typing import Any

from dd_jax.ablations.runs import computed
from dd_jax.config import Config, ConfigError


def choose(rows: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The rows that are asked for, each once and in their own order; all of them where none is.

    Raises:
      ConfigError: one of them is not there.
    """
    if unknown := [row for row in asked if row not in rows]:
        raise ConfigError(f"--rows: there is no {', '.join(unknown)}, only {', '.join(rows)}")
    return [row for row in rows if not asked or row in asked]


def leave_out(
    rows: Sequence[str], baseline: str, named: bool, valid_config: Callable[[str], Config]
) -> tuple[list[str], list[str]]:
    """The rows that have something to say, and for each of the others a sentence that says why not.

    Args:
      named: the rows are asked for by name, and none may be missing.
      valid_config: a row's config; raises ConfigError where it cannot work.

    Raises:
      ConfigError: the baseline cannot work, or one of the rows that are named.
    """
    try:
        reference = effective(valid_config(baseline))
    except ConfigError:
        if baseline in rows:
            raise
        reference = None
    kept, sentences = [], []
    for row in rows:
        try:
            if row != baseline and effective(valid_config(row)) == reference:
                raise ConfigError(f"it computes what {baseline} does, because nothing uses the options in which they differ")
        except ConfigError as error:
            if named:
                raise ConfigError(f"row {row}: {error}") from error
            sentences.append(f"row {row} is left out: {error}")
        else:
            kept.append(row)
    return kept, sentences


def effective(config: Config) -> dict[str, Any]:
    """What decides the numbers of a run: the config without its name, and without the options that nothing uses."""
    values = computed(config) | {"name": ""}
    if not (config.domd.enabled and config.model.student):  # no frame has holes
        values["domd"] = None
        values["cost_volume"]["occlusion"] = values["loss"]["occlusion_rule"] = None
    if not config.cost_volume.future_frame:  # one frame has nothing to aggregate
        values["cost_volume"]["aggregate"] = None
    return values
