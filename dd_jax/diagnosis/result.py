"""The answers to all questions about one model."""

import dataclasses
from typing import Any

from dd_jax.diagnosis.poses import Motion

ByRegion = dict[str, float | None]
"""region -> abs_rel, None without such pixels."""


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A part that cannot be computed is None, and ``missing`` says why."""

    samples: int
    depth_range: tuple[float, float] | None = None  # nearest and farthest bin, in the networks' unit
    lookup: dict[str, ByRegion] | None = None  # of lookup.LOOKUPS -> the student's errors
    teacher: ByRegion | None = None  # or the only network
    mean_map: ByRegion | None = None
    poses: dict[str, Any] | None = None  # see poses.compare_poses
    by_range: dict[str, dict[str, float | int | None]] | None = None  # see matching.by_range
    supervision: dict[str, float | None] | None = None  # see supervision.measure
    findings: tuple[str, ...] = ()  # sentences
    missing: dict[str, str] = dataclasses.field(default_factory=dict)  # part -> reason
    motion: Motion | None = None  # what ``poses`` is computed from

    def as_json(self) -> dict[str, Any]:
        """All but the arrays."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "motion"}
