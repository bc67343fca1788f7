"""What is kept of a run: its config and the scores of every test drive."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from dd_jax.config import Config, ConfigError, from_dict, to_dict
from dd_jax.evaluation.evaluate import REGIONS
from dd_jax.runtime import files

LOOKUPS = ("previous", "other", "none")
PREDICTORS = (*LOOKUPS, "teacher")
"""The student by lookup frame (``diagnosis.lookup``), and the teacher."""

PATHS = {"data": ("root", "split_dir", "cache_dir", "threads", "ground_truth_file", "allow_pickle"), "train": ("init_from",)}
"""Fields that say where files are and do not change what is computed; ``Result.base`` identifies the base."""


@dataclasses.dataclass
class Scores:
    """Scores of one run on the test split, by drive."""

    images: str  # digest of the names of all images
    counts: dict[str, dict[str, int]]  # region -> drive -> number of images with such pixels
    abs_rel: dict[str, dict[str, dict[str, float]]]  # of PREDICTORS -> region -> drive -> mean over these images

    def __post_init__(self):
        if set(self.abs_rel) != set(PREDICTORS) or any(
            by_region.keys() != self.counts.keys() or by_region[region].keys() != self.counts[region].keys()
            for by_region in self.abs_rel.values()
            for region in self.counts
        ):
            raise ValueError(f"it must have the predictors {', '.join(PREDICTORS)} with all regions and drives")
        if not set(self.counts) <= set(REGIONS):
            raise ValueError(f"its regions must be of {', '.join(REGIONS)}")
        errors = [error for by_region in self.abs_rel.values() for drives in by_region.values() for error in drives.values()]
        counts = [count for drives in self.counts.values() for count in drives.values()]
        if not all(type(count) is int and count > 0 for count in counts) or not all(map(_is_number, errors)):
            raise ValueError("its errors must be finite numbers, and its counts positive")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@dataclasses.dataclass
class Result:
    """One finished run."""

    row: str
    config: Config
    base: str  # digest of the model from which it started
    versions: dict[str, str]
    step_seconds: float | None
    scores: Scores

    @property
    def seed(self) -> int:
        return self.config.train.seed


def read(file: Path) -> Result | None:
    """The result that :func:`write` wrote; None if the file does not exist.

    Raises:
      ConfigError: the file is damaged, or of a version with other fields.
    """
    if not file.is_file():
        return None
    try:
        values = files.read_json(file)
        return Result(**values | {"config": from_dict(values["config"]), "scores": Scores(**values["scores"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{file} is damaged, or of a version with other fields: delete it and run again, which repeats the evaluation"
        ) from error


def read_scores(file: Path) -> Scores:
    """The scores that ``measure`` wrote.

    Raises:
      ConfigError: the file is absent or damaged.
    """
    try:
        return Scores(**files.read_json(file))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is absent or damaged: run again, which repeats the evaluation") from error


def write(file: Path, result: Result) -> None:
    """Writes a result without the paths of this machine; an interrupted write leaves the file unchanged."""
    files.replace(file, json.dumps(dataclasses.asdict(result) | {"config": computed(result.config)}) + "\n")


def computed(config: Config) -> dict[str, Any]:
    """The config without the places of files."""
    return {
        section: {name: value for name, value in fields.items() if name not in PATHS.get(section, ())}
        if isinstance(fields, dict)
        else fields
        for section, fields in to_dict(config).items()
    }
