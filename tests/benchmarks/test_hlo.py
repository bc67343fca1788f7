import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from dd_jax.benchmarks import hlo
from dd_jax.benchmarks.hlo import Collectives
from dd_jax.geometry import splat
from dd_jax.losses.normals import relative_normal_error

INDICES = jnp.array([3, 0, 3])


def given(function, *arguments):
    """The program of ``function`` as the compiler gets it."""
    return jax.jit(function).lower(*arguments).compiler_ir("hlo").as_hlo_module().to_string()


def kinds(function, *arguments):
    return hlo.by_kind(hlo.operations(given(function, *arguments)))


@pytest.mark.parametrize("combiner", ["add", "min", "max", "mul", "set"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_scatters_counted_by_combiner(combiner, dtype):
    values = jnp.ones(3, dtype)
    found = kinds(lambda x, i: getattr(x.at[i], combiner)(values), jnp.zeros(8, dtype), INDICES)
    assert found == {f"scatter-{combiner}": 1}


def test_gradient_of_gather_is_scatter_add():
    found = kinds(jax.grad(lambda x, i: jnp.sum(x[i] ** 2)), jnp.zeros(8), INDICES)
    assert found["scatter-add"] == 1 and found["gather"] == 1


def test_gradient_of_maximum_over_windows_is_select_and_scatter():
    pool = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (2,), "VALID")  # noqa: E731
    assert kinds(jax.grad(lambda x: jnp.sum(pool(x) ** 2)), jnp.zeros(8))["select-and-scatter"] == 1


def test_computation_counts_as_often_as_it_is_called():
    inner = jax.jit(lambda x: x.at[INDICES].add(1.0))
    assert kinds(lambda x: inner(inner(x)), jnp.zeros(8)) == {"scatter-add": 2}


def test_loop_body_and_branches_count_once():
    def body(i, x):
        return jax.lax.cond(i > 2, lambda x: jnp.sort(x), lambda x: x.at[INDICES].max(1.0), x)

    found = kinds(lambda x, steps: jax.lax.fori_loop(0, steps, body, x), jnp.zeros(8), 5)
    assert found == {"while": 1, "conditional": 1, "sort": 1, "scatter-max": 1}


def test_operations_of_compiled_program():
    """Fusions and copies by the compiler included; the CPU's compiler leaves no scatter."""
    text = jax.jit(lambda x, y: (jnp.sort(x.T), x + y)).lower(jnp.ones((3, 4)), jnp.ones((3, 4))).compile().as_text()
    found = hlo.by_kind(hlo.operations(text))
    assert found["sort"] == 1 and found.get("transpose", 0) + found.get("copy", 0) > 0


def test_source_is_innermost_line_of_the_package():
    text = given(partial(splat.splat_depth, upscale=2), jnp.ones((1, 4, 6)), jnp.eye(4)[None], jnp.eye(3)[None])
    found = hlo.operations(text)
    sources = [source for kind, source in found if kind.startswith("scatter")]
    assert sources and all(source.startswith("geometry/splat.py:") for source in sources)


def test_source_of_called_computation_is_that_of_the_caller():
    """``take_along_axis`` is compiled as a function of its own, whose lines are not of this package."""
    loss = lambda normals, chain: jnp.sum(relative_normal_error(normals, 2 * normals, chain))  # noqa: E731
    found = hlo.operations(given(jax.grad(loss), jnp.ones((1, 4, 4, 3)), jnp.zeros((1, 4, 2), int)))
    sources = [source for kind, source in found if kind == "scatter-add"]
    assert sources and all(source.startswith("losses/normals.py:") for source in sources)


def test_source_names_the_calling_file_too():
    text = given(splat.forward_warp, jnp.ones((1, 4, 6, 3)), jnp.ones((1, 4, 6)), jnp.eye(4)[None], jnp.eye(3)[None])
    sources = [source for kind, source in hlo.operations(text) if kind == "gather"]
    assert sources and all(re.fullmatch(r"geometry/sampling.py:\d+ from geometry/splat.py:\d+", source) for source in sources)


def test_source_outside_the_package_is_empty():
    assert hlo.operations(given(lambda x: jnp.sort(x), jnp.ones(3))) == {("sort", ""): 1}


def test_program_without_operations():
    assert hlo.operations(given(jnp.sin, 1.0)) == {} and hlo.by_kind({}) == {}


def compiled_on(devices, body, *arguments):
    mesh = Mesh(np.array(devices), ("d",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(body, mesh=mesh, in_specs=PartitionSpec("d"), out_specs=PartitionSpec("d"), check_vma=False)
    return jax.jit(mapped).lower(*arguments).compile()


def test_collectives_of_compiled_module():
    """Four devices with two of eight rows each: bytes of the result on one device."""

    def body(x):
        total = jax.lax.psum(x, "d")  # (2, 3): 24 bytes
        everything = jax.lax.all_gather(x, "d")  # (4, 2, 3): 96 bytes
        shifted = jax.lax.ppermute(x, "d", [(i, (i + 1) % 4) for i in range(4)])
        return total + shifted + everything.sum(0)

    text = compiled_on(jax.devices()[:4], body, jnp.ones((8, 3))).as_text()
    assert hlo.collectives_of(text) == {
        "all-reduce": Collectives(1, 24),
        "all-gather": Collectives(1, 96),
        "collective-permute": Collectives(1, 24),
    }


def test_collectives_in_loops_counted_separately():
    def body(x):
        turn = lambda i, y: y + jax.lax.psum(y * i, "d")  # noqa: E731
        return jax.lax.fori_loop(0, 100, turn, x) + jax.lax.psum(x[:1], "d")

    found = hlo.collectives_of(compiled_on(jax.devices()[:2], body, jnp.ones((8, 3))).as_text())
    assert found == {"all-reduce": Collectives(1, 12), "all-reduce in loops": Collectives(1, 48)}


def test_single_device_has_no_collectives():
    assert hlo.collectives_of(jax.jit(jnp.sin).lower(1.0).compile().as_text()) == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "  %a.1 = (f32[32]{0:T(128)S(1)}, /*index=1*/bf16[2,8]{1,0}) all-reduce(%x, %y), to_apply=%s",
            {"all-reduce": Collectives(1, 128 + 32)},
        ),
        ("  %a.1 = f32[32]{0} all-reduce-start(%x), to_apply=%sum", {"all-reduce": Collectives(1, 128)}),
        ("  %a.2 = f32[32]{0} all-reduce-done(%a.1)", {}),
        ("  %g = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), dimensions={0}", {"all-gather": Collectives(1, 32)}),
        ("  %p = f32[] add(%all-reduce.1, %y)", {}),
    ],
)
def test_collectives_in_tpu_syntax(line, found):
    assert hlo.collectives_of(line) == found


SCHEDULE = """
  %a = f32[4]{0} all-reduce-start(%x), to_apply=%sum
  %b = f32[2]{0} all-reduce-start(%y), to_apply=%sum
  %bitcast.1 = f32[2]{0} bitcast(%z)
  %c = f32[2]{0} all-reduce-done(%b)
  %f = f32[4]{0} fusion(%z), kind=kLoop, calls=%computation
  %g = f32[4]{0} custom-call(%f), custom_call_target="conv"
  %d = f32[4]{0} all-reduce-done(%a)
  %h = f32[4]{0} all-reduce(%g), to_apply=%sum
  %i = f32[4]{0} fusion(%h), kind=kLoop, calls=%computation
  %j = f32[4]{0} all-reduce-start(%i), backend_config={"collective_backend_config":{"is_sync":true}}
  %k = f32[4]{0} fusion(%z), kind=kLoop, calls=%computation
  %l = f32[4]{0} all-reduce-done(%j)
"""


def test_overlapped_if_computations_stand_between_start_and_end():
    """The first of two started ones runs during a fusion, the second only during a bitcast, and the last two are synchronous."""
    assert hlo.collectives_of(SCHEDULE) == {"all-reduce": Collectives(4, 16 + 8 + 16 + 16, overlapped=1, overlapped_bytes=16)}


ARRAYS = [jnp.zeros((3, 5)), jnp.zeros((2,), bool), jnp.zeros((), jnp.bfloat16), jnp.zeros(4, jnp.uint16)]


@pytest.mark.parametrize("array", ARRAYS)
def test_shape_bytes(array):
    text = jax.jit(lambda x: x).lower(array).compile().as_text()
    line = next(line for line in text.splitlines() if "parameter(0)" in line)
    assert hlo.shape_bytes(line.split(" parameter(")[0].split(" = ")[1]) == [array.nbytes]
