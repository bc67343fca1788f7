"""Programs of a model: inputs, outputs, networks and pixel types."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.export import programs


@pytest.fixture(scope="module")
def model():
    return tiny.restored(tiny.config(**tiny.SHARP))


def names(config, network="student"):
    (program,) = programs.programs(tiny.restored(config), network)
    return list(program.inputs), list(program.outputs)


def test_inputs_depend_on_config(model):
    two = ["image", "mask", "previous_image", "previous_mask", "has_previous_image"]
    outputs = ["inverse_depth", "T_previous_from_target"]
    assert names(model.config) == ([*two, "K"], outputs)
    assert names(model.config, "teacher") == (["image"], outputs[:1])
    three = tiny.config(cost_volume={"future_frame": True})
    assert names(three) == ([*two, "next_image", "next_mask", "has_next_image", "K"], outputs)
    without = tiny.config(domd={"enabled": False}, cost_volume={"occlusion": "none"})
    assert names(without) == (["image", "previous_image", "has_previous_image", "K"], outputs)


def test_descriptions_name_the_frame_step():
    """The second input of a model with another step is not the frame before."""
    for step, words in ((1, ("the previous frame", "the next frame")), (3, ("the frame 3 before", "the frame 3 after"))):
        config = tiny.config(data={"frame_step": step}, cost_volume={"future_frame": True})
        (program,) = programs.programs(tiny.restored(config), "student")
        for prefix, name in zip(("previous", "next"), words):
            assert program.inputs[f"{prefix}_image"].meaning == name
            assert program.inputs[f"has_{prefix}_image"].meaning.startswith(f"whether {name} exists")
        assert f"to that of {words[0]}; identity" in program.outputs["T_previous_from_target"].meaning


def test_networks_of_a_model():
    found = programs.programs(tiny.restored(tiny.config()))
    assert [program.network for program in found] == ["teacher", "student"]
    single = tiny.restored(tiny.config(model={"student": False}))
    assert [program.network for program in programs.programs(single)] == ["teacher"]
    with pytest.raises(ConfigError, match="has no student, only a single-frame network: use --network=auto"):
        programs.programs(single, "student")


@pytest.mark.parametrize(("given", "message"), [({"network": "both"}, "--network=both"), ({"pixels": "int8"}, "--pixels=int8")])
def test_unknown_choices_raise(model, given, message):
    with pytest.raises(ConfigError, match=f"{message} is not one of"):
        programs.programs(model, **given)


def test_uint8_images(model):
    batch = tiny.batch(2, frames=2)
    by_float, by_bytes = (programs.programs(model, "teacher", pixels)[0] for pixels in programs.PIXELS)
    outputs = [jax.jit(one.run)(**programs.arguments(one, batch))["inverse_depth"] for one in (by_float, by_bytes)]
    assert by_bytes.abstract(2)["image"].dtype == programs.arguments(by_bytes, batch)["image"].dtype == np.uint8
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-6)


def test_bfloat16_model_in_float32(model):
    assert programs.in_float32(model) is model
    networks = dataclasses.replace(model.config.model, precision="bfloat16")
    coarse = dataclasses.replace(model, config=dataclasses.replace(model.config, model=networks))
    assert programs.in_float32(coarse).config == model.config and coarse.config.model.precision == "bfloat16"
