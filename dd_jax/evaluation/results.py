"""Results of an evaluation, and the files it writes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dd_jax import report
from dd_jax.config import Config, ConfigError, protocols, to_dict
from dd_jax.evaluation import metrics
from dd_jax.runtime import hosts

Scores = dict[str, dict[str, dict[str, float | int | None]]]
"""predictor -> region -> errors (None without pixels), number of ``pixels`` and of ``images``."""


@dataclasses.dataclass
class Results:
    """Results of :func:`dd_jax.evaluation.evaluate.evaluate`."""

    metrics: Scores
    scales: dict[str, dict[str, float]]  # predictor -> median and relative standard deviation of the scale factors
    images: list[tuple[str, dict[str, metrics.Result]]]  # (sample, predictor -> its scores; empty without ground truth)
    panels: dict[str, UInt8[np.ndarray, "_ _ 3"]]  # sample -> panel
    worst: list[report.ReportSample]  # by abs_rel of the first predictor, the worst first
    best: list[report.ReportSample]
    images_per_second: float  # reading, prediction and scoring, without the first batch and its compilation
    page: Path | None = None  # the report, once written

    @property
    def measured(self) -> int:
        """Number of images with valid ground truth, over which the scores are averaged."""
        return sum(any("scale" in own for own in scores.values()) for _, scores in self.images)

    @property
    def coverage(self) -> str:
        """``measured``, and the number of images if it is larger."""
        total = len(self.images)
        return f"{total:,}" if self.measured == total else f"{self.measured:,} of {total:,}"


def make_folder(out: str | Path) -> None:
    """Creates the folder for the results; called before the evaluation, so that an error loses nothing.

    Raises:
      ConfigError: it cannot be created.
    """
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out={out} cannot be created ({error.strerror}): choose another folder") from error


def write_results(
    results: Results, out: str | Path, title: str, config: Config,
    facts: Mapping[str, str], history: Sequence[Mapping[str, Any]], versions: Mapping[str, str],
) -> None:  # fmt: skip
    """Writes the files of an evaluation: ``metrics.json``, ``metrics.csv``, ``per_image.csv``, ``report.html``."""
    results.page = Path(out) / "report.html"
    if not hosts.primary():
        return
    report.write_tables(out, results.metrics, results.images)
    speed = {"images measured": results.coverage, "images / s, evaluation": f"{results.images_per_second:.1f}"}
    report.write_html(
        results.page,
        title,
        results=results.metrics if results.measured else None,
        protocol=protocols.describe(config.eval),
        history=history,
        panels=results.panels,
        worst=results.worst,
        best=results.best,
        facts=speed | facts,
        config=to_dict(config),
        versions=versions,
    )
