"""Alarms of a training run: what the signs of a log window (``method/signs.py``) say about a collapse, one sentence each.

docs/reliability.md says what the thresholds rest on.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.config import Config
from dd_jax.diagnosis.findings import BINS_FOLLOW, COPIES_TEACHER, HARDLY_MOVES, MARGIN_LOST, MASKED, POSES_FIRST, RELIABLE

PATIENCE = 100
"""Steps that a sign must last, without a window that lacks it."""

WARM_UP = 1000
"""Steps from untrained networks, in which only missing gradients count: otherwise these networks look like collapsed ones."""

FLAT = 0.05
"""Standard deviation of an image's disparity over its mean, below which the depth is nearly constant."""

STILL = 0.001
"""Predicted distance to the source frames over the depth, below which the camera counts as standing."""

ALIKE = 0.02
"""Relative spread of that distance over samples, below which all frames get the same motion."""

VISIBLE, CONFIDENT = 0.5, 0.25
"""Shares below which these count: pixels that the source frames show, cells that are observed at every bin."""

AT_BORDER = 0.6
"""Share of matched cells whose cheapest bin is the first or last, above which matching finds nothing."""

CONTRAST = 0.05
"""Relative distance of the smallest from the mean cost, below which all bins cost the same."""

NO_GRADIENT = 1e-5
"""Gradient norm below which a network does not train."""

Window = Mapping[str, float]
"""Means of the metrics over the steps of a log window."""


def symptoms(step: int, window: Window, config: Config) -> dict[str, str]:
    """A sentence for each alarm that the window that ends at ``step`` gives reason for."""
    found = no_gradient(window, config)
    if config.train.init_from or step > WARM_UP:
        for check in (flat_depth, pose_collapse, supervision, matching):
            found |= check(window, config)
    return found


def flat_depth(window: Window, config: Config) -> dict[str, str]:
    """A network predicts the same depth everywhere."""
    return {
        f"flat depth of the {network}": (
            f"The {network.replace('_', '-')} network predicts nearly the same depth everywhere (the disparity of an image "
            f"deviates by {value:.1%} from its mean): it has collapsed, usually since the poses are wrong. Check the camera "
            f"intrinsics (check_data.py), and {POSES_FIRST}; if the loss jumped before, lower optim.learning_rate."
        )
        for network, value in of_networks(window, "disparity_spread")
        if value < FLAT
    }


def pose_collapse(window: Window, config: Config) -> dict[str, str]:
    """The predicted motion is none, the same for all samples, or too large."""
    found, distance = {}, window.get("motion/parallax", math.nan)
    spread = math.sqrt(max(0.0, window.get("motion/parallax_squared", math.nan) - distance**2)) / max(distance, 1e-12)
    if distance < STILL:
        found["no motion"] = (
            f"The predicted camera hardly moves between the frames (by {distance:.2%} of the mean depth): no depth explains the "
            f"source frames, so it is not learnt. If the car does move, {POSES_FIRST}, or raise model.initial_forward."
        )
    elif spread < ALIKE:
        found["constant motion"] = (
            f"The predicted motion is the same for all samples (its length deviates by {spread:.1%}): unless the car drove at "
            f"constant speed, the pose network ignores its images: {POSES_FIRST}."
        )
    if (share := window.get("supervision/visible", math.nan)) < VISIBLE:
        found["motion too large"] = (
            f"The source frames show {share:.0%} of the target's pixels: the predicted motion is too large for the depth, or the "
            "camera intrinsics are wrong. Check them (data.intrinsics, check_data.py), and lower optim.learning_rate or "
            "data.frame_step."
        )
    return found


def supervision(window: Window, config: Config) -> dict[str, str]:
    """Few pixels train a network by the photometric error."""
    found = {}
    if (share := window.get("supervision/masked", math.nan)) > MASKED:
        who = "SC-DepthV3's masks drop" if config.sc.enabled else "The auto-mask drops"
        found["few pixels for the single-frame network"] = (
            f"{who} {share:.0%} of the pixels of the single-frame network: {HARDLY_MOVES}."
        )
    # Only samples without matching augmentation have reliable pixels.
    if (share := window.get("supervision/reliable", math.nan) / max(1e-12, unaugmented(config))) < RELIABLE:
        found["few pixels for the student"] = (
            f"The photometric error trains the student on {share:.0%} of the pixels of samples without matching augmentation; "
            f"{COPIES_TEACHER}."
        )
    return found


def matching(window: Window, config: Config) -> dict[str, str]:
    """The cost volume says nothing."""
    if "matching/confident" not in window:  # no student
        return {}
    found, counted = {}, window["matching/confident"]
    if (share := counted / max(1e-12, unaugmented(config))) < CONFIDENT:
        found["cost volume not observed"] = (
            f"Only {share:.0%} of the cells of the cost volume are observed at every bin, and the student reads no costs of the "
            f"others: the bins begin too near for the predicted motion (metric bins/near), or the poses are wrong. {MARGIN_LOST}."
        )
    elif (share := window["matching/at_border"] / counted) > AT_BORDER:
        found["matching at the border bins"] = (
            f"In {share:.0%} of the matched cells the cheapest bin is the first or the last: the depths lie outside the bins "
            f"(metrics bins/near, bins/far), or the poses are wrong. If the poses are right, {BINS_FOLLOW}; "
            "cost_volume.range_percentile narrows them."
        )
    elif (share := window["matching/contrast"] / counted) < CONTRAST:
        found["flat costs"] = (
            f"All bins of the cost volume cost the same (the cheapest is {share:.1%} below the mean): matching tells the student "
            "nothing. Check the poses, and use larger images, neighbours further apart (data.frame_step), or other features "
            "(cost_volume.features=colours)."
        )
    return found


def no_gradient(window: Window, config: Config) -> dict[str, str]:
    """A network does not train."""
    return {
        f"no gradient for {network}": (
            f"The {network} network gets no gradient (norm {value:.1g}): no pixel supervises it, or its loss terms have no "
            "weight. See the metrics of the group supervision and the weights in loss.*; scripts/replay.py shows single steps."
        )
        for network, value in of_networks(window, "grad_norm")
        if value < NO_GRADIENT
    }


def of_networks(window: Window, group: str) -> list[tuple[str, float]]:
    """Networks, and their metrics ``group/NETWORK``."""
    return [(name.partition("/")[2], value) for name, value in window.items() if name.startswith(f"{group}/")]


def unaugmented(config: Config) -> float:
    """Share of samples without matching augmentation."""
    return 1 - config.cost_volume.static_probability - config.cost_volume.zero_pose_probability


class Alarms:
    """The alarms of a run, window by window.

    Args:
      history: records of ``metrics.jsonl`` up to here, so that a resumed run repeats no alarm.
    """

    def __init__(self, config: Config, history: Sequence[Mapping[str, Any]] = ()):
        self._config = config
        self._since: dict[str, int] = {}  # alarm -> first step of its windows
        self._raised: set[str] = set()
        self._last = 0  # step of the last window
        for record in history:
            if record["kind"] == "train":
                self.update(record["step"], {name: float(value) for name, value in record.items() if name != "kind"})

    def update(self, step: int, window: Window) -> list[dict[str, Any]]:
        """Alarms that begin or end with the window that ends at ``step``: "alarm", "state" (raised, cleared), "since", "text"."""
        found, first = symptoms(step, window, self._config), self._last + 1
        self._last = step
        events = []
        for name in [name for name in self._since if name not in found]:
            since = self._since.pop(name)
            if name in self._raised:
                self._raised.remove(name)
                events.append({"alarm": name, "state": "cleared", "since": since, "text": f"Cleared: {name}."})
        for name, text in found.items():
            since = self._since.setdefault(name, first)
            if name not in self._raised and step - since + 1 >= PATIENCE:
                self._raised.add(name)
                events.append({"alarm": name, "state": "raised", "since": since, "text": text})
        return events
