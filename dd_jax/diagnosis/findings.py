"""What the answers mean, and what to try: one sentence or two per finding.

Thresholds and remedies in capitals are also those of the alarms during training (``alarms.py``).
"""

from dd_jax.diagnosis.result import Diagnosis

SAME = 0.005
"""Relative difference of two abs_rel up to which they count as equal."""

LOW_CORRELATION = 0.5
"""Correlation of predicted and true speed below which the prediction does not follow."""

STEADY = 0.1
"""Relative deviation of the true speed up to which the correlation says nothing."""

CREEPING = 0.1
"""Predicted metres per frame above which a standing car is not recognised."""

TURNED = 0.1
"""Median rotation error in degrees up to which it does not matter."""

OUTSIDE, UNUSED, MASKED = 0.1, 0.25, 0.6
"""Shares above which these count: true depth outside the bins, cells without costs, auto-masked pixels."""

RELIABLE = 0.25
"""Share of pixels below which the photometric error hardly trains the student."""

MUCH_BETTER = 0.8
"""Ratio of the matching errors with true and with predicted poses below which the poses are at fault."""

UNINFORMATIVE = 2.0
"""Ratio of the errors of matching and teacher above which matching tells little."""

POSES_FIRST = (
    "train teacher and pose network on small images without auto-mask first (loss.automask=False, loss.pyramid=True, "
    "model.translation_scale=0.1)"
)
BINS_FOLLOW = "the bins follow the teacher's nearest and farthest depth, so the teacher must learn these depths first"
MARGIN_LOST = "The cells of cost_volume.margin at each border are always lost"
COPIES_TEACHER = (
    "elsewhere it learns to repeat its teacher. If poses and matching are good, lower cost_volume.static_probability and "
    "cost_volume.zero_pose_probability"
)
HARDLY_MOVES = (
    "most of the image hardly moves between frames. Use neighbours further apart (data.frame_step), or leave out frames in which "
    "the car stands"
)


def findings(found: Diagnosis) -> tuple[str, ...]:
    """All that apply; empty if none does."""
    checks = (against_teacher, against_mean_map, lookup_frame, speed, standing, rotation, bins, costs, pose_limit, matching_limit,
              reliable, auto_masked)  # fmt: skip
    return tuple(sentence for check in checks if (sentence := check(found)))


def against_teacher(found: Diagnosis) -> str | None:
    """The student is not better."""
    if found.lookup is None or found.teacher is None:
        return None
    student, teacher = found.lookup["previous"]["all"], found.teacher["all"]
    if student < teacher * (1 - SAME):
        return None
    verdict = "worse than" if student > teacher * (1 + SAME) else "no better than"
    return f"The student is {verdict} its teacher, which sees one frame ({_against(student, teacher)})."


def against_mean_map(found: Diagnosis) -> str | None:
    """The model has not learned to read the image."""
    if found.mean_map is None or found.teacher is None:
        return None
    error, mean_map = (found.lookup["previous"] if found.lookup else found.teacher)["all"], found.mean_map["all"]
    if error < mean_map * (1 - SAME):
        return None
    return (
        f"The model is no better than the mean depth map of the training split ({_against(error, mean_map)}): train longer, and "
        "check the data with check_data.py."
    )


def lookup_frame(found: Diagnosis) -> str | None:
    """The right lookup frame does not help."""
    if found.lookup is None:
        return None
    previous, other, none, target = (found.lookup[name]["all"] for name in ("previous", "other", "none", "target"))
    if other <= previous * (1 + SAME):
        verdict = "even better" if other < previous * (1 - SAME) else "as well"
        return (
            f"The student ignores what its lookup frame shows: another sample's frame serves it {verdict} "
            f"({_against(other, previous)}). Check the poses, then the image size: matching needs motion of more than a cell "
            "of the cost volume, which is 4 pixels wide."
        )
    if none <= previous * (1 + SAME):
        return (
            f"The student notices a wrong lookup frame, but is as good without any ({_against(none, previous)}): matching does "
            "not help it. Check the poses and the matching errors by range."
        )
    if target < previous * (1 - SAME):
        return (
            f"The student is better with the target itself as its lookup frame ({_against(target, previous)}): matching with the "
            "previous frame misleads it. Check the poses."
        )
    return None


def speed(found: Diagnosis) -> str | None:
    """The predicted speed does not follow the true one."""
    if found.poses is None or found.poses["speed_correlation"] is None:
        return None
    varies = found.poses["true_speed_deviation"] > STEADY * found.poses["true_speed_median"]
    correlation = found.poses["speed_correlation"]
    if not varies or correlation >= LOW_CORRELATION:
        return None
    return (
        f"The predicted speed does not follow the true one (correlation {correlation:.2f}), so the plane sweep compares the "
        f"wrong pixels: {POSES_FIRST}, or refine the poses (model.pose_refinement)."
    )


def standing(found: Diagnosis) -> str | None:
    """A standing car is predicted to move."""
    speed = found.poses and found.poses["standing_speed"]
    if speed is None or speed <= CREEPING:
        return None
    return (
        f"Where the car stands, the predicted motion is {speed:.2f} m per frame: standing frames hardly train the pose network, "
        "because the auto-mask drops their pixels. Train without it first (loss.automask=False), then with "
        "loss.automask_parallax=0.05."
    )


def rotation(found: Diagnosis) -> str | None:
    """No rotation at all would be a better prediction."""
    if found.poses is None:
        return None
    error, turn = found.poses["rotation_error_deg_median"], found.poses["true_rotation_deg_median"]
    if error <= max(TURNED, turn):
        return None
    return (
        f"Predicted rotations are no better than none (median error {error:.2f}°, true rotation {turn:.2f}°): train the pose "
        "network on small images first (loss.pyramid=True), or refine the poses (model.pose_refinement)."
    )


def bins(found: Diagnosis) -> str | None:
    """True depths lie outside the bins."""
    share = found.by_range and found.by_range["all"].get("outside_bins")
    if share is None or share <= OUTSIDE:
        return None
    ranges = [name for name, row in found.by_range.items() if name != "all" and (row["outside_bins"] or 0) > 0.5]
    where = f", most of those in {', '.join(ranges)} m" if ranges else ""
    return f"{share:.0%} of the true depths are outside the depth bins{where}: {BINS_FOLLOW}."


def costs(found: Diagnosis) -> str | None:
    """The student does not read the costs of many cells."""
    row = found.by_range and found.by_range["all"]
    if not row or row.get("unused") is None or row["unused"] <= UNUSED:
        return None
    return (
        f"On {row['unused']:.0%} of the static cells the student reads no costs, because the lookup frame does not show them at "
        f"every bin ({row['unobserved']:.0%}: at none). {MARGIN_LOST}."
    )


def pose_limit(found: Diagnosis) -> str | None:
    """Matching is much better with true poses."""
    row = found.by_range and found.by_range["all"]
    predicted, true = _pair(row, "matching_predicted_poses", "matching_true_poses")
    if predicted is None or true >= MUCH_BETTER * predicted:
        return None
    return (
        f"With true poses the cheapest depth bin is much better (median error {_against(true, predicted)}): the poses limit the "
        "student. Refine them by image alignment (model.pose_refinement=5), with more iterations if they are refined already."
    )


def matching_limit(found: Diagnosis) -> str | None:
    """Matching tells little even with true poses."""
    row = found.by_range and found.by_range["all"]
    teacher, matching = _pair(row, "teacher", "matching_true_poses")
    if teacher is None or matching <= UNINFORMATIVE * teacher:
        return None
    return (
        "Even with true poses the cheapest depth bin has more than twice the error of the teacher (median "
        f"{_against(matching, teacher)}): at this image size and frame rate matching tells little. Use larger images, "
        "neighbours further apart (data.frame_step), or other features (cost_volume.features=colours, cost_volume.window=7)."
    )


def reliable(found: Diagnosis) -> str | None:
    """The student mostly copies its teacher."""
    share = found.supervision and found.supervision["reliable_in_training"]
    if share is None or share >= RELIABLE:
        return None
    return (
        f"The photometric error trains the student on {share:.0%} of the pixels ({found.supervision['reliable']:.0%} without "
        f"matching augmentation); {COPIES_TEACHER}."
    )


def auto_masked(found: Diagnosis) -> str | None:
    """Most pixels do not train the single-frame network."""
    share = found.supervision and found.supervision["auto_masked"]
    if share is None or share <= MASKED:
        return None
    return f"The auto-mask drops {share:.0%} of the pixels of the single-frame network: {HARDLY_MOVES}."


def _against(first: float, second: float) -> str:
    return f"{first:.4f} against {second:.4f}"


def _pair(row: dict[str, float | int | None] | None, *names: str) -> tuple[float | None, float | None]:
    """Two values of a row; None for both if one is missing."""
    values = tuple((row or {}).get(name) for name in names)
    return (None, None) if None in values else values
