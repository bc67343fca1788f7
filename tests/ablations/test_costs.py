import jax
import jax.numpy as jnp
import pytest
import tiny

from dd_jax.ablations import costs
from dd_jax.ablations.runs import Run

SINGLE_FRAME = {"model": {"student": False}, "domd": {"enabled": False}}


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
    backward = operations(lambda image, kernel, given: jax.vjp(convolve, image, kernel)[1](given), image, kernel, convolve(image, kernel))
    assert backward == 3 * once  # and forward, which make_jaxpr leaves in


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


@pytest.mark.slow
def test_a_step_costs_less_with_teacher_and_pose_fixed_and_more_with_another_term():
    config = tiny.config(optim={"freeze_step": 5, "steps": 9})
    cost, cycle = costs.count(config), costs.step_gflop(tiny.config(loss={"pose_cycle": 0.1}), frozen=False)
    assert cost.config == config and 0 < cost.frozen < 0.8 * cost.joint < 0.8 * cycle


def test_a_sample_costs_the_same_in_any_batch_and_microbatch():
    config = tiny.config(**SINGLE_FRAME, optim={"freeze_step": -1})
    larger = tiny.config(**SINGLE_FRAME, optim={"freeze_step": -1}, data={"batch_size": 8}, train={"microbatches": 2})
    one = costs.count(config)
    assert one.config == config and one.frozen is None
    # The optimiser's share is halved.
    assert 0.98 * one.joint < costs.count(larger).joint < one.joint


def test_what_a_row_costs_is_counted_once_for_all_seeds(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(costs, "step_gflop", lambda config, frozen: counted.append(config.name) or 1.0)
    config = tiny.config(optim={"freeze_step": -1})

    def run(row, seed, **sections):
        return Run(row, seed, tiny.config(**{"optim": {"freeze_step": -1}, "train": {"seed": seed}} | sections), (), tmp_path / row / "s")

    assert costs.known(run("base", 0)) is None
    costs.complete([run("base", 0), run("base", 1), run("other", 0)])
    costs.complete([run("base", 2), run("other", 0, data={"root": "elsewhere"})])
    assert len(counted) == 2 and costs.known(run("base", 1)) == costs.Cost(config, costs.versions(), 1.0, None)
    assert costs.known(run("base", 0, model={"width": 16})) is None
