from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.benchmarks import parts
from dd_jax.benchmarks.parts import Part
from dd_jax.method.augment import augment
from dd_jax.method.train_step import create_state, loss_fn
from dd_jax.types import TARGET

NO_AUGMENTATION = {"static_probability": 0.0, "zero_pose_probability": 0.0}

SYSTEMS = {
    "dynamic_depth": (
        tiny.config(cost_volume=NO_AUGMENTATION),
        ["teacher", "pose", "DOMD", "cost volume", "student", "losses", "optimiser"],
    ),
    "many_depth_with_the_next_frame": (
        tiny.config(
            domd={"enabled": False},
            cost_volume=NO_AUGMENTATION | {"occlusion": "none", "future_frame": True},
            loss={"pose_cycle": 0.1},
        ),
        ["teacher", "pose", "cost volume", "student", "losses", "optimiser"],
    ),
    "ds_depth": (
        tiny.config(domd={"enabled": False}, cost_volume=NO_AUGMENTATION | {"occlusion": "none"}, ds={"enabled": True}),
        ["teacher", "pose", "flow", "cost volume", "student", "losses", "optimiser"],
    ),
    "monodepth2_with_flow": (
        tiny.config(model={"student": False, "flow": True}, domd={"enabled": False}, optim={"freeze_step": -1}),
        ["teacher", "pose", "losses", "optimiser"],
    ),
}
"""Config, and the parts that it has."""


@pytest.mark.parametrize(
    "system", [name if name == "dynamic_depth" else pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS]
)
def test_the_parts_one_after_another_are_the_step(system, monkeypatch):
    """What the last part says about the batch is the step's own loss, so every part before it computed what the step does."""
    config, names = SYSTEMS[system]
    config.loss.automask_noise = tiny.SHARP["loss"]["automask_noise"]

    def forward_only(name, function, taught, *inputs):
        return Part(name, partial(jax.jit(function), taught, *inputs), None, 0.0)

    monkeypatch.setattr(parts, "compile_part", forward_only)
    state, batch = create_state(config), jax.tree.map(jnp.asarray, tiny.batch(2))
    image = augment(batch, config.augment, train=True).inputs[:, TARGET]
    teacher = parts.teacher_part(config, state, image)
    pieces = [teacher, *parts.parts(config, state, batch, teacher)]
    assert [piece.name for piece in pieces] == names

    terms = next(piece for piece in pieces if piece.name == "losses").forward()[1]
    total, (expected, *_) = jax.jit(lambda state: loss_fn(state.params, state, batch, config, None, False))(state)
    assert set(terms) == set(expected) and terms["total"] == pytest.approx(float(total), rel=1e-4)
    for _ in range(2):  # in place, on a copy of its own
        params, _ = pieces[-1].forward()
    assert not all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(state.params)))


def test_a_part_runs_forward_and_backward():
    part = parts.compile_part("square", lambda x, y: ((x * x, y * x), None), 3.0, 5.0)
    (square, product), changed = part.forward()
    gradient, _ = part.backward()
    assert (float(square), float(product), changed, float(gradient)) == (9.0, 15.0, None, 2 * 3.0 + 5.0)
    assert part.compile_seconds > 0


def test_what_is_not_taught_has_no_backward_pass():
    part = parts.compile_part("double", lambda taught, x: (2 * x, None), None, 4.0)
    assert part.backward is None and float(part.forward()[0]) == 8.0
