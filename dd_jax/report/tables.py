"""Scores as text for the terminal and as JSON and CSV files."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dd_jax.report.html import METRIC_NAMES

Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""predictor -> region -> name -> number, or None for a region without pixels."""


def format_table(scores: Scores, scales: Mapping[str, Mapping[str, float]]) -> str:
    """One line per region and predictor; regions without pixels are left out.

    Args:
      scales: predictor -> "median" and "relative_std" of the factors from its depth to metres.
    """
    lines = [("region", "predictor", *METRIC_NAMES, "images", "pixels")]
    for region in dict.fromkeys(region for regions in scores.values() for region in regions):
        for predictor, regions in scores.items():
            row = regions[region]
            if row["pixels"]:
                counts = (f"{row[name]:,}" for name in ("images", "pixels"))
                lines.append((region, predictor, *(f"{row[name]:.4f}" for name in METRIC_NAMES), *counts))
    if len(lines) == 1:
        return "no ground truth: no scores"
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = [[cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(line, widths))] for line in lines]
    factors = [f"{who} {scale['median']:.3g} ± {scale['relative_std']:.1%}" for who, scale in scales.items()]
    return "\n".join(["  ".join(line).rstrip() for line in aligned] + ["scale to metres: " + ", ".join(factors)])


def write_tables(directory: str | Path, scores: Scores, images: Sequence[tuple[str, Scores]]) -> None:
    """``metrics.json`` (the seven errors, pixels, images), ``metrics.csv`` (all scores), ``per_image.csv`` (those of each image).

    A score is the mean over the "images" with pixels in the region. ``images`` has (sample, predictor -> region -> errors and
    pixels), and in the region "scale" the factor ``ratio``.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    seven = {
        who: {region: {name: row[name] for name in (*METRIC_NAMES, "pixels", "images")} for region, row in regions.items()}
        for who, regions in scores.items()
    }
    (directory / "metrics.json").write_text(json.dumps(seven, indent=2, allow_nan=False) + "\n")
    rows = [{"predictor": who, "region": region} | row for who, regions in scores.items() for region, row in regions.items()]
    columns = list(rows[0])
    _write_csv(directory / "metrics.csv", columns, rows)
    lines = [
        {"image": image, "predictor": who, "region": region, "scale": found["scale"]["ratio"]} | row
        for image, results in images
        for who, found in results.items()
        for region, row in found.items()
        if row.get("pixels")
    ]
    _write_csv(directory / "per_image.csv", ["image", *(name for name in columns if name != "images"), "scale"], lines)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
