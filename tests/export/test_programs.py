"""A system as functions of named arrays answers what the system predicts."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.export import programs


@pytest.fixture(scope="module")
def system():
    return tiny.restored(tiny.config(**tiny.SHARP))


def names(config, network="student"):
    (program,) = programs.programs(tiny.restored(config), network)
    return list(program.inputs), list(program.outputs)


def test_what_goes_in_depends_on_what_the_system_looks_at(system):
    two = ["image", "mask", "previous_image", "previous_mask", "has_previous_image"]
    outputs = ["inverse_depth", "T_previous_from_target"]
    assert names(system.config) == ([*two, "K"], outputs)
    assert names(system.config, "teacher") == (["image"], outputs[:1])
    three = tiny.config(cost_volume={"future_frame": True})
    assert names(three) == ([*two, "next_image", "next_mask", "has_next_image", "K"], outputs)
    without = tiny.config(domd={"enabled": False}, cost_volume={"occlusion": "none"})
    assert names(without) == (["image", "previous_image", "has_previous_image", "K"], outputs)


def test_all_that_a_system_has():
    found = programs.programs(tiny.restored(tiny.config()))
    assert [program.network for program in found] == ["teacher", "student"]
    single = tiny.restored(tiny.config(model={"student": False}))
    assert [program.network for program in programs.programs(single)] == ["teacher"]
    with pytest.raises(ConfigError, match="has no student, only a single-frame network: leave --network=auto"):
        programs.programs(single, "student")


@pytest.mark.parametrize(("given", "says"), [({"network": "both"}, "--network=both"), ({"pixels": "int8"}, "--pixels=int8")])
def test_unknown_choices_are_refused(system, given, says):
    with pytest.raises(ConfigError, match=f"{says} is not one of"):
        programs.programs(system, **given)


def test_bytes_are_the_same_pictures(system):
    batch = tiny.batch(2, frames=2)
    by_float, by_bytes = (programs.programs(system, "teacher", pixels)[0] for pixels in programs.PIXELS)
    answers = [jax.jit(one.run)(**programs.arguments(one, batch))["inverse_depth"] for one in (by_float, by_bytes)]
    assert by_bytes.abstract(2)["image"].dtype == programs.arguments(by_bytes, batch)["image"].dtype == np.uint8
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-6)


def test_networks_in_bfloat16_have_a_twin_in_float32(system):
    assert programs.in_float32(system) is system
    model = dataclasses.replace(system.config.model, precision="bfloat16")
    coarse = dataclasses.replace(system, config=dataclasses.replace(system.config, model=model))
    assert programs.in_float32(coarse).config == system.config and coarse.config.model.precision == "bfloat16"
