"""Which rows of the table are run: the requested ones that are valid and differ from the baseline."""

from collections.abc import Callable, Sequence
from typing import Any

from dd_jax.ablations.runs import computed
from dd_jax.config import Config, ConfigError


def choose(rows: Sequence[str], requested: Sequence[str]) -> list[str]:
    """The requested rows, each once and in the order of ``rows``; all rows if none is requested.

    Raises:
      ConfigError: a requested row does not exist.
    """
    if unknown := [row for row in requested if row not in rows]:
        raise ConfigError(f"--rows: unknown {', '.join(unknown)}; choose from {', '.join(rows)}")
    return [row for row in rows if not requested or row in requested]


def leave_out(
    rows: Sequence[str], baseline: str, named: bool, valid_config: Callable[[str], Config]
) -> tuple[list[str], list[str]]:
    """The rows to run, and for each of the others a sentence that gives the reason.

    Args:
      named: the rows were requested by name, so a row that cannot run is an error.
      valid_config: returns the config of a row; raises ConfigError if it is invalid.

    Raises:
      ConfigError: the baseline, or a row requested by name, is invalid.
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
                raise ConfigError(f"it computes the same as {baseline}: the options in which they differ are unused here")
        except ConfigError as error:
            if named:
                raise ConfigError(f"row {row}: {error}") from error
            sentences.append(f"row {row} is left out: {error}")
        else:
            kept.append(row)
    return kept, sentences


def effective(config: Config) -> dict[str, Any]:
    """The fields that determine the numbers of a run: the config without its name and without unused options."""
    values = computed(config) | {"name": ""}
    if not (config.domd.enabled and config.model.student):  # no frame has holes
        values["domd"] = None
        values["cost_volume"]["occlusion"] = values["loss"]["occlusion_rule"] = None
    if not config.cost_volume.future_frame:  # one frame has nothing to aggregate
        values["cost_volume"]["aggregate"] = None
    return values
