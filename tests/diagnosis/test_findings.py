import dataclasses

import pytest

from dd_jax.diagnosis.findings import findings
from dd_jax.diagnosis.result import Diagnosis

REGIONS = ("all", "dynamic", "moving", "static")


def everywhere(error):
    return dict.fromkeys(REGIONS, error)


GOOD = Diagnosis(
    samples=100,
    depth_range=(0.1, 5.0),
    lookup={"previous": everywhere(0.10), "other": everywhere(0.15), "none": everywhere(0.11), "target": everywhere(0.11)},
    teacher=everywhere(0.11),
    mean_map=everywhere(0.3),
    poses={
        "speed_correlation": 0.95,
        "standing_speed": 0.01,
        "rotation_error_deg_median": 0.05,
        "true_rotation_deg_median": 0.02,
        "true_speed_median": 0.8,
        "true_speed_deviation": 0.3,
    },
    by_range={
        "0-4": {"outside_bins": 0.6},
        "4-6": {"outside_bins": 0.0},
        "all": {"teacher": 0.08, "matching_predicted_poses": 0.11, "matching_true_poses": 0.10, "outside_bins": 0.02,
                "unobserved": 0.1, "unused": 0.2},
    },
    supervision={"reliable": 0.8, "reliable_in_training": 0.4, "auto_masked": 0.3},
)  # fmt: skip
"""All is well, some values just so."""


def changed(part, **values):
    return findings(dataclasses.replace(GOOD, **{part: getattr(GOOD, part) | values}))


def changed_by_range(**values):
    return changed("by_range", all=GOOD.by_range["all"] | values)


def only(found):
    assert len(found) == 1
    return found[0]


def test_nothing_to_find_when_all_is_well():
    assert findings(GOOD) == ()


@pytest.mark.parametrize("missing", [(), ("lookup", "by_range", "poses", "supervision"), ("lookup", "mean_map", "teacher")])
def test_missing_parts_are_no_finding(missing):
    assert findings(dataclasses.replace(GOOD, **dict.fromkeys(missing))) == ()
    assert findings(Diagnosis(3)) == ()


@pytest.mark.parametrize(("teacher", "verdict"), [(0.10, "no better than"), (0.1004, "no better than"), (0.09, "worse than")])
def test_student_not_better_than_its_teacher(teacher, verdict):
    assert f"The student is {verdict} its teacher" in only(changed("teacher", **everywhere(teacher)))


def test_no_better_than_the_mean_map():
    assert "no better than the mean depth map" in only(changed("mean_map", **everywhere(0.1)))
    single = dataclasses.replace(GOOD, lookup=None, mean_map=everywhere(0.105))
    assert "(0.1100 against 0.1050)" in only(findings(single))


@pytest.mark.parametrize(("other", "words"), [(0.1004, "as well (0.1004 against 0.1000)"), (0.09, "even better (0.0900")])
def test_lookup_frame_of_another_sample_serves_as_well(other, words):
    found = only(changed("lookup", other=everywhere(other)))
    assert found.startswith("The student ignores what its lookup frame shows") and words in found
    assert not changed("lookup", other=everywhere(0.101))


def test_matching_does_not_help_or_misleads():
    assert "as good without any" in only(changed("lookup", none=everywhere(0.1)))
    assert "misleads it" in only(changed("lookup", target=everywhere(0.09)))


def test_speed_does_not_follow():
    assert "correlation 0.40" in only(changed("poses", speed_correlation=0.4))
    assert not changed("poses", speed_correlation=0.6)
    assert not changed("poses", speed_correlation=None)
    assert not changed("poses", speed_correlation=0.0, true_speed_deviation=0.05)  # a steady car


def test_standing_car_predicted_to_move():
    assert "0.30 m per frame" in only(changed("poses", standing_speed=0.3))
    assert not changed("poses", standing_speed=None)


def test_rotation_no_better_than_none():
    assert "median error 0.30°, true rotation 0.20°" in only(
        changed("poses", rotation_error_deg_median=0.3, true_rotation_deg_median=0.2)
    )
    assert not changed("poses", rotation_error_deg_median=0.3, true_rotation_deg_median=0.4)
    assert not changed("poses", rotation_error_deg_median=0.09)  # too small to matter


def test_depth_outside_the_bins_names_the_ranges():
    found = only(changed_by_range(outside_bins=0.2))
    assert "20% of the true depths" in found and "most of those in 0-4 m" in found


def test_cells_without_costs():
    assert "On 40% of the static cells" in only(changed_by_range(unused=0.4))


def test_poses_limit_matching():
    assert "the poses limit the student" in only(changed_by_range(matching_predicted_poses=0.2))
    assert not changed_by_range(matching_predicted_poses=0.2, matching_true_poses=None)


def test_matching_tells_little_even_with_true_poses():
    assert "Even with true poses" in only(changed_by_range(matching_predicted_poses=0.2, matching_true_poses=0.2))


def test_student_learns_from_few_pixels():
    assert "on 20% of the pixels (40% without" in only(changed("supervision", reliable=0.4, reliable_in_training=0.2))
    assert not changed("supervision", reliable=None, reliable_in_training=None)


def test_most_pixels_auto_masked():
    assert "drops 70% of the pixels" in only(changed("supervision", auto_masked=0.7))
