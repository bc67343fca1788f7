import io

import pytest

from dd_jax.config import Config, TrainConfig
from dd_jax.diagnosis.alarms import PATIENCE, WARM_UP, Alarms, symptoms
from dd_jax.report import Logger, read_history, write_html

HEALTHY = {
    "total": 0.08,
    "disparity_spread/teacher": 0.6,
    "disparity_spread/student": 0.6,
    "motion/parallax": 0.09,
    "motion/parallax_squared": 0.0105,
    "motion/rotation": 1.6,
    "supervision/visible": 0.9,
    "supervision/masked": 0.3,
    "supervision/reliable": 0.4,
    "matching/confident": 0.45,
    "matching/at_border": 0.08,
    "matching/contrast": 0.15,
    "grad_norm/teacher": 0.1,
    "grad_norm/pose": 0.5,
    "grad_norm/student": 0.4,
}
"""A window of a run on rendered drives, with the matching augmentation of half of the samples as by default."""

SICK = {
    "flat depth of the teacher": {"disparity_spread/teacher": 0.01},
    "flat depth of the student": {"disparity_spread/student": 0.0},
    "no motion": {"motion/parallax": 0.0004, "motion/parallax_squared": 3e-7},
    "constant motion": {"motion/parallax": 0.09, "motion/parallax_squared": 0.0081001},
    "motion too large": {"supervision/visible": 0.4},
    "few pixels for the single-frame network": {"supervision/masked": 0.75},
    "few pixels for the student": {"supervision/reliable": 0.1},
    "cost volume not observed": {"matching/confident": 0.0, "matching/at_border": 0.0, "matching/contrast": 0.0},
    "matching at the border bins": {"matching/at_border": 0.42},
    "flat costs": {"matching/contrast": 0.01},
    "no gradient for pose": {"grad_norm/pose": 0.0},
}


CONTINUED = Config(train=TrainConfig(init_from="a teacher"))
"""Of trained networks: there is no warm-up."""


def events(windows, config=CONTINUED):
    alarms = Alarms(config)
    return [(step, event) for step, window in windows for event in alarms.update(step, window)]


@pytest.mark.parametrize("name", SICK)
def test_alarm_is_raised_once_by_a_lasting_sign_and_cleared(name):
    sick = HEALTHY | SICK[name]
    windows = [(50, HEALTHY), (100, sick), (150, sick), (200, sick), (250, HEALTHY), (300, sick)]
    found = events(windows)
    assert [(step, event["alarm"], event["state"], event["since"]) for step, event in found] == [
        (150, name, "raised", 51), (250, name, "cleared", 51)
    ]  # fmt: skip
    text = found[0][1]["text"]
    assert text.endswith(".") and any(word in text for word in ("loss.", "model.", "data.", "optim.", "cost_volume."))


def test_healthy_windows_raise_nothing():
    assert symptoms(9999, HEALTHY, Config()) == {}
    assert events([(step, HEALTHY) for step in range(20, 2000, 20)]) == []


@pytest.mark.parametrize("window", [{"total": 0.1, "skipped": 0.0}, dict.fromkeys(HEALTHY, float("nan"))])
def test_unknown_values_raise_nothing(window):
    """Runs of former versions, and windows in which every step was skipped."""
    assert symptoms(9999, window, Config()) == {}


def test_short_sign_raises_nothing():
    sick = HEALTHY | {"grad_norm/pose": 0.0}
    assert events([(step, HEALTHY if step % PATIENCE == 0 else sick) for step in range(10, 1000, 10)]) == []


@pytest.mark.parametrize("name", SICK)
def test_untrained_networks_raise_only_missing_gradients(name):
    windows = [(step, HEALTHY | SICK[name]) for step in range(50, WARM_UP + 201, 50)]
    first = PATIENCE if name.startswith("no gradient") else WARM_UP + PATIENCE
    assert [(step, event["since"]) for step, event in events(windows, Config())] == [(first, first - PATIENCE + 1)]


def test_fewer_samples_with_matching_augmentation_are_expected_to_have_more_reliable_pixels():
    config = Config()
    config.cost_volume.static_probability = config.cost_volume.zero_pose_probability = 0.0
    low = HEALTHY | {"supervision/reliable": 0.2}
    assert symptoms(9999, low, Config()) == {} and list(symptoms(9999, low, config)) == ["few pixels for the student"]


def test_resumed_run_repeats_no_alarm_and_the_report_lists_them(tmp_path):
    sick = HEALTHY | {"grad_norm/pose": 0.0}

    def run(start, stop, healthy_at=0):
        said = io.StringIO()
        with Logger(tmp_path, 1000, start, stream=said) as logger:
            alarms = Alarms(Config(), read_history(tmp_path))
            for step in range(start + 20, stop + 1, 20):
                window = HEALTHY if step == healthy_at else sick
                logger.log(step, window)
                for event in alarms.update(step, window):
                    logger.alarm(step, event)
        return said.getvalue()

    assert run(0, 160).count("ALARM since step 1: The pose network gets no gradient") == 1
    assert "ALARM" not in run(120, 200)  # from a checkpoint at 120, where it was raised already
    assert "Cleared: no gradient for pose." in run(200, 260, healthy_at=240)
    records = [record for record in read_history(tmp_path) if record["kind"] == "alarm"]
    assert [(record["step"], record["state"], record["since"]) for record in records] == [(100, "raised", 1), (240, "cleared", 1)]
    write_html(tmp_path / "report.html", "a run", history=records)
    page = (tmp_path / "report.html").read_text()
    assert "<li><b>no gradient for pose</b>, steps 1 to 240: The pose network gets no gradient" in page
