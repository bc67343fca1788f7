import pytest
import tiny

from dd_jax.benchmarks.accelerator import plan
from dd_jax.config import ConfigError
from dd_jax.config.rules import validate


@pytest.mark.parametrize(
    ("left", "minutes", "expected"),
    [
        (600.0, [4.0, 6.0], 240.0),  # all fit
        (1200.0, [4.0, 6.0], 480.0),  # more time than they need
        (300.0, [4.0, 6.0, 1.0], 240.0),  # the second does not fit
        (200.0, [4.0, 2.0], None),
        (0.0, [1.0], None),
    ],
)
def test_measurements_that_fit_share_the_time(left, minutes, expected):
    assert plan.seconds_for_first(left, minutes) == expected


def test_ten_minutes_are_planned():
    assert sum(measurement.minutes for measurement in plan.MEASUREMENTS) == pytest.approx(10)
    assert plan.MEASUREMENTS[0].name == "device"


def test_chosen_measurements_keep_their_order():
    names = [measurement.name for measurement in plan.chosen(["loader", "tests"])]
    assert names == ["device", "tests", "loader"] and plan.chosen([]) == plan.MEASUREMENTS
    with pytest.raises(ConfigError, match=r"--only=losses is unknown: choose from device, tests, step_float32"):
        plan.chosen(["losses", "tests"])


def test_tiny_config_is_valid_and_the_given_one_unchanged():
    given = tiny.config(data={"height": 192, "width": 640})
    config, shorter, sizes = plan.tiny(given, plan.MEASUREMENTS)
    validate(config)
    assert (config.data.height, given.data.height, sizes["batch_sizes"]) == (64, 192, (1, 2))
    assert sum(measurement.minutes for measurement in shorter) == pytest.approx(2)
