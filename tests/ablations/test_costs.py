import functools

import jax
import jax.numpy as jnp
import pytest
import tiny

from dd_jax.ablations import costs
from dd_jax.ablations.runs import Run
from dd_jax.method.train_step import create_state, train_step


def operations(program, *arguments):
    return costs.operations(jax.make_jaxpr(program)(*arguments).jaxpr)


def test_products_count_twice_and_other_numbers_once():
    x = jnp.ones((3, 5, 7))
    assert operations(lambda x: jnp.einsum("abc,cd->abd", x, jnp.ones((7, 2))), x) == 2 * 3 * 5 * 7 * 2
    assert operations(lambda x: x * x + 1, x) == 2 * x.size
    assert operations(lambda x: jnp.sum(x, axis=1), x) == operations(lambda x: jnp.cumsum(x, axis=1), x) == x.size
    assert operations(lambda x: jnp.roll(x.T, 1).astype(jnp.int32)[1:], x) == 0
    assert operations(lambda x: x.at[jnp.array([0, 2])].add(1.0), x) == pytest.approx(2 * 5 * 7, abs=10)  # and its indices
    window = (1, 3, 3)
    assert operations(lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.max, window, (1, 1, 1), "SAME"), x) == 9 * x.size


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_costs_as_much_as_each_of_its_gradients(stride):
    image, kernel = jnp.ones((2, 8, 12, 3)), jnp.ones((3, 3, 3, 5))

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    once = 2 * 2 * (8 // stride) * (12 // stride) * 5 * 9 * 3
    assert operations(convolve, image, kernel) == once

    def backward(image, kernel, given):
        return jax.vjp(convolve, image, kernel)[1](given)

    assert operations(backward, image, kernel, convolve(image, kernel)) == 3 * once  # it goes forward too


def test_a_loop_counts_as_often_as_it_turns():
    def turn(_, x):
        return jnp.sin(x)

    def turns(x):
        return jax.lax.fori_loop(0, 4, turn, x)

    x = jnp.ones(10)
    assert operations(lambda x: jax.lax.map(turns, x), jnp.ones((3, 10))) == 3 * operations(turns, x)
    assert 40 <= operations(turns, x) <= 40 + 4  # and its counter
    assert 10 <= operations(lambda x, n: jax.lax.fori_loop(0, n, turn, x), x, 4) <= 10 + 4  # not known before it runs


def test_of_branches_the_dearest_counts_or_the_one_of_the_platform():
    cheap, dear = jnp.sin, lambda x: jnp.sin(jnp.cos(x))
    x = jnp.ones(10)
    assert 20 <= operations(lambda x, dark: jax.lax.cond(dark, cheap, dear, x), x, True) <= 22
    assert operations(lambda x: jax.lax.platform_dependent(x, tpu=dear, default=cheap), x) <= 12
    assert operations(lambda x: jax.lax.platform_dependent(x, cpu=cheap, default=dear), x) <= 12


def test_cost_is_of_a_sample_in_one_piece_and_of_what_is_used(monkeypatch):
    def step(state, batch, config, axis, frozen):
        assert config.train.microbatches == 1 and axis is None
        jnp.sin(jnp.cos(batch.prior))  # nobody uses it
        return 2.0 * batch.prior[..., 0] + state

    monkeypatch.setattr(costs, "create_state", lambda config: jnp.zeros(()))
    monkeypatch.setattr(costs, "train_step", step)
    config = tiny.config(data={"priors": "files", "batch_size": 6}, train={"microbatches": 3}, optim={"freeze_step": -1})
    cost = costs.count(config)
    assert cost.joint * 1e9 == 2 * tiny.HEIGHT and cost.frozen is None and cost.config == config


@pytest.mark.parametrize(
    ("freeze", "has"), [(-1, (True, False)), (0, (False, True)), (5, (True, True)), (9, (True, False))]
)
def test_cost_is_of_the_steps_that_there_are(monkeypatch, freeze, has):
    monkeypatch.setattr(costs, "step_gflop", lambda config, frozen: 2.0 if frozen else 3.0)
    cost = costs.count(tiny.config(optim={"freeze_step": freeze, "steps": 9}))
    assert (cost.joint, cost.frozen) == tuple(value if there else None for value, there in zip((3.0, 2.0), has, strict=True))


@pytest.mark.slow
def test_a_step_costs_less_with_teacher_and_pose_fixed_and_more_with_another_term():
    config = tiny.config()
    joint, frozen = (costs.step_gflop(config, frozen) for frozen in (False, True))
    assert 0 < frozen < 0.8 * joint < 0.8 * costs.step_gflop(tiny.config(loss={"pose_cycle": 0.1}), frozen=False)


@pytest.mark.slow
def test_a_step_costs_what_xla_counts_where_nothing_turns():
    """But for zeros around images and moved numbers, which XLA leaves out or counts otherwise."""
    config = tiny.config(model={"student": False}, domd={"enabled": False}, augment={"jitter": 0.0})
    body = functools.partial(train_step, config=config, axis=None, frozen=False)
    lowered = jax.jit(body).lower(jax.eval_shape(lambda: create_state(config)), tiny.batch(config.data.batch_size))
    counted = lowered.cost_analysis()["flops"] / config.data.batch_size / 1e9
    assert costs.step_gflop(config, frozen=False) == pytest.approx(counted, rel=0.2)


def test_what_a_row_costs_is_counted_once_for_all_seeds(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(costs, "step_gflop", lambda config, frozen: counted.append(config.name) or 1.0)

    def run(row, seed, **sections):
        config = tiny.config(optim={"freeze_step": -1}, train={"seed": seed}, **sections)
        return Run(row, seed, config, (), tmp_path / row / f"seed{seed}")

    assert costs.known(run("base", 0)) is None
    costs.complete([run("base", 0), run("base", 1), run("other", 0)])
    costs.complete([run("base", 2), run("other", 0, data={"root": "elsewhere"})])
    assert len(counted) == 2 and costs.known(run("base", 1)) == costs.Cost(run("base", 1).config, costs.versions(), 1.0, None)
    assert costs.known(run("base", 0, model={"width": 16})) is None
