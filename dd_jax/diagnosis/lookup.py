"""The samples of a split with other frames in place of the target's neighbours."""

import numpy as np
from jaxtyping import Int

from dd_jax.data.frames import GroundTruth
from dd_jax.data.loader import TripletSource
from dd_jax.types import TARGET

LOOKUPS = {
    "previous": "previous frame",
    "other": "another sample's frame",
    "none": "no lookup frame",
    "target": "target frame itself",
}
"""What the student is given as lookup frame; another sample is of another drive if there is one."""


class LookupSource(TripletSource):
    """``source`` with "other", "none" or "target" of :data:`LOOKUPS` as lookup frame, or as both of them with ``future_frame``.

    The whole system sees it, the pose network included. A sample without a previous frame stays without.
    """

    def __init__(self, source: TripletSource, lookup: str):
        self._source, self._lookup = source, lookup
        self._partners = partners([drive_of(source.name(index)) for index in range(len(source))])

    def __len__(self) -> int:
        return len(self._source)

    def gather(self, indices: Int[np.ndarray, " b"], num_frames: int = 3) -> dict[str, np.ndarray]:
        values = self._source.gather(indices, num_frames)
        neighbours = [place for place in range(num_frames) if place != TARGET]
        if self._lookup == "none":
            values["exists"][:, neighbours] = False
            return values
        donor = values if self._lookup == "target" else self._source.gather(self._partners[indices], num_frames)
        for name in ("images", "masks"):
            values[name][:, neighbours] = donor[name][:, TARGET, None]
        return values

    def ground_truth(self, index: int, kind: str) -> GroundTruth | None:
        return self._source.ground_truth(index, kind)

    def name(self, index: int) -> str:
        return self._source.name(index)


def drive_of(name: str) -> str:
    """The drive, city or clip of a sample, the first word of its line in the split file."""
    return name.split()[0]


def partners(drives: list[str]) -> Int[np.ndarray, " n"]:
    """For each sample another one, half of the split away or the next one after that of another drive."""
    count = len(drives)
    found = (np.arange(count) + max(1, count // 2)) % count
    for index in range(count) if len(set(drives)) > 1 else ():
        while drives[found[index]] == drives[index]:
            found[index] = (found[index] + 1) % count
    return found
