"""A diagnosis as tables, for the terminal and for the report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.diagnosis.lookup import LOOKUPS
from dd_jax.diagnosis.result import Diagnosis
from dd_jax.evaluation.evaluate import REGIONS

POSES = {
    "frames": ("frames", "{:,}"),
    "speed_correlation": ("speed corr.", "{:.2f}"),
    "yaw_correlation": ("yaw corr.", "{:.2f}"),
    "rotation_error_deg_median": ("rotation error °", "{:.2f}"),
    "rotation_error_deg_90": ("its 90th pct.", "{:.2f}"),
    "true_rotation_deg_median": ("true rotation °", "{:.2f}"),
    "true_speed_median": ("true speed", "{:.2f}"),
    "standing_speed": ("standing", "{:.2f}"),
}
BY_RANGE = {
    "cells": ("cells", "{:,}"),
    "teacher": ("teacher", "{:.3f}"),
    "student": ("student", "{:.3f}"),
    "student_true_poses": ("student, true poses", "{:.3f}"),
    "matching_predicted_poses": ("cheapest bin", "{:.3f}"),
    "matching_true_poses": ("cheapest bin, true poses", "{:.3f}"),
    "outside_bins": ("outside the bins", "{:.0%}"),
    "unobserved": ("not observed", "{:.0%}"),
    "unused": ("costs not used", "{:.0%}"),
}
SUPERVISION = {
    "reliable": "the student learns from the photometric error (elsewhere from the teacher), without augmentation",
    "reliable_in_training": "the same, with the matching augmentation of training",
    "auto_masked": "auto-masked: the single-frame network does not learn from the photometric error",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells below a head; ``note`` explains them, or says why there are none."""

    title: str
    note: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def tables(found: Diagnosis) -> list[Table]:
    """One per question."""
    return [_lookup(found), _by_range(found), _poses(found), _supervision(found)]


def text(table: Table) -> str:
    """The table with aligned columns."""
    lines = [table.head, *table.rows] if table.rows else []
    widths = [max(map(len, column)) for column in zip(*lines)]
    aligned = [
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(zip(line, widths)))
        for line in lines
    ]
    return "\n".join([f"{table.title}: {table.note}", *(line.rstrip() for line in aligned)])


def _lookup(found: Diagnosis) -> Table:
    title = "Lookup frame"
    if found.teacher is None:
        return Table(title, found.missing["teacher"])
    names = {f"student, {LOOKUPS[name]}": errors for name, errors in (found.lookup or {}).items()}
    names |= {"teacher" if found.lookup else "single-frame network": found.teacher}
    names |= {} if found.mean_map is None else {"mean depth map of the training split": found.mean_map}
    regions = [region for region in REGIONS if found.teacher[region] is not None]
    rows = [[name, *(_cell(errors[region], "{:.4f}") for region in regions)] for name, errors in names.items()]
    return Table(title, "abs_rel of the student with different lookup frames, by region; lower is better", ["", *regions], rows)


def _by_range(found: Diagnosis) -> Table:
    title = "Depth by range"
    if found.by_range is None:
        return Table(title, found.missing["by_range"])
    note = "median relative error of static cells at a quarter of the training size, and shares of these cells"
    return _columns(title, note, "true depth, m", BY_RANGE, found.by_range)


def _poses(found: Diagnosis) -> Table:
    title = "Poses"
    if found.poses is None:
        return Table(title, found.missing["poses"])
    note = (
        "predicted against true motion to the previous frame: correlations, medians, and the mean predicted speed where the car "
        "stands; speed in metres per frame, after one scale for all frames"
    )
    rows = {"all": found.poses} | {drive.split("/")[-1]: row for drive, row in found.poses["per_drive"].items()}
    return _columns(title, note, "drive", POSES, rows)


def _supervision(found: Diagnosis) -> Table:
    title = "Supervision"
    if found.supervision is None:
        return Table(title, found.missing["supervision"])
    rows = [[name, _cell(found.supervision[key], "{:.1%}")] for key, name in SUPERVISION.items()]
    return Table(title, "shares of all pixels of samples with both neighbours", ["", "share"], rows)


def _columns(
    title: str, note: str, first: str, columns: Mapping[str, tuple[str, str]], rows: Mapping[str, Mapping[str, Any]]
) -> Table:
    """A table with those of ``columns`` (key -> head and format) that any row has."""
    kept = {key: column for key, column in columns.items() if any(row.get(key) is not None for row in rows.values())}
    body = [[name, *(_cell(row.get(key), form) for key, (_, form) in kept.items())] for name, row in rows.items()]
    return Table(title, note, [first, *(head for head, _ in kept.values())], body)


def _cell(value: float | int | None, form: str) -> str:
    return "–" if value is None else form.format(value)
