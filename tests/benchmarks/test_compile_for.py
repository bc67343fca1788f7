import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, Mesh, PartitionSpec

from dd_jax.benchmarks import compile_for
from dd_jax.benchmarks.compile_for import Collectives
from dd_jax.config import ConfigError
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state
from dd_jax.runtime import parallel

NO_LIBTPU = "needs libtpu: pip install -e '.[tpu-aot]'"


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
    assert compile_for.collectives(text) == {
        "all-reduce": Collectives(1, 24),
        "all-gather": Collectives(1, 96),
        "collective-permute": Collectives(1, 24),
    }


def test_collectives_in_loops_counted_separately():
    def body(x):
        turn = lambda i, y: y + jax.lax.psum(y * i, "d")  # noqa: E731
        return jax.lax.fori_loop(0, 100, turn, x) + jax.lax.psum(x[:1], "d")

    found = compile_for.collectives(compiled_on(jax.devices()[:2], body, jnp.ones((8, 3))).as_text())
    assert found == {"all-reduce": Collectives(1, 12), "all-reduce in loops": Collectives(1, 48)}


def test_single_device_has_no_collectives():
    assert compile_for.collectives(jax.jit(jnp.sin).lower(1.0).compile().as_text()) == {}


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
    assert compile_for.collectives(line) == found


ARRAYS = [jnp.zeros((3, 5)), jnp.zeros((2,), bool), jnp.zeros((), jnp.bfloat16), jnp.zeros(4, jnp.uint16)]


@pytest.mark.parametrize("array", ARRAYS)
def test_shape_bytes(array):
    text = jax.jit(lambda x: x).lower(array).compile().as_text()
    line = next(line for line in text.splitlines() if "parameter(0)" in line)
    assert compile_for.shape_bytes(line.split(" parameter(")[0].split(" = ")[1]) == [array.nbytes]


@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_abstract_arguments_match_training(backend):
    config = tiny.config(train={"backend": backend}, data={"batch_size": 4})
    state, batch = compile_for.abstract_arguments(config, 2)
    given = parallel.shard_batch(tiny.batch(4), config, jax.devices()[:2])
    kinds = partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert kinds(batch) == kinds(given) and kinds(state) == kinds(create_state(config))


def test_cpu_topology_is_local_device():
    assert compile_for.topology_devices("cpu") == jax.devices("cpu")[:1]


def teacher_only():
    return tiny.config(model={"student": False}, domd={"enabled": False}, optim={"freeze_step": -1})


@pytest.fixture
def small_step(monkeypatch):
    """Two CPU devices as the topology, and a step that adds the batch to a parameter."""
    devices = jax.devices()[:2]
    monkeypatch.setattr(compile_for, "topology_devices", lambda topology: devices)

    def body(state, batch):
        total = jax.lax.psum(jnp.sum(batch.K), parallel.AXIS)
        return state.replace(depth_range=state.depth_range + total), {"total": total}

    def compile_step(config, frozen, devices):
        return jax.pmap(body, parallel.AXIS, in_axes=(None, 0), out_axes=None, devices=devices, donate_argnums=0)

    monkeypatch.setattr(compiled_steps, "compile_train_step", compile_step)


def test_needs_from_memory_analysis(small_step):
    config = teacher_only()
    found = compile_for.needs(config, "v5e:1x2", 3)
    state, _ = compile_for.abstract_arguments(config, 2)
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert (found.devices, found.batch_size, found.memory_bytes, found.fits) == (2, 6, None, True)
    assert found.argument_bytes >= held and found.alias_bytes == held and found.compile_seconds > 0
    everything = found.argument_bytes + found.output_bytes - found.alias_bytes + found.temporary_bytes
    assert found.argument_bytes <= found.total_bytes - found.code_bytes <= everything
    assert found.collectives == {"all-reduce": Collectives(1, 4)}


def test_step_larger_than_memory_does_not_fit(small_step, monkeypatch):
    monkeypatch.setitem(compile_for.MEMORY, jax.devices()[0].device_kind, 1000)
    found = compile_for.needs(teacher_only(), "v5e:1x2", 3)
    assert not found.fits and found.memory_bytes == 1000


OUT_OF_MEMORY = [
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded by 4.75G.",
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (20.50G) exceeds available HBM "
    "(15.75G).",
]


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_out_of_memory_message_parsed(small_step, monkeypatch, message):

    class Lowered:
        def lower(self, *_):
            return self

        def compile(self):
            raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(compiled_steps, "compile_train_step", lambda *_: Lowered())
    found = compile_for.needs(teacher_only(), "v5e:1x2", 3)
    assert not found.fits and found.total_bytes == int(20.5 * compile_for.GIB) and found.flops is None
    assert "| **fits** | **no** |" in compile_for.table([found]) and "| program | - |" in compile_for.table([found])
    message = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        compile_for.needs(teacher_only(), "v5e:1x2", 3)


@pytest.mark.parametrize(("hosts", "backend"), [([0, 0], "pmap"), ([0, 1], "jit")])
def test_several_hosts_get_jit(monkeypatch, hosts, backend):
    class Lowered:
        def lower(self, *_):
            return self

        def compile(self):
            raise jax.errors.JaxRuntimeError(OUT_OF_MEMORY[0])

    config, compiled = teacher_only(), []
    devices = [SimpleNamespace(process_index=host, device_kind="any") for host in hosts]
    monkeypatch.setattr(compile_for, "topology_devices", lambda _: devices)

    def compile_train_step(config, *_):
        compiled.append(config.train.backend)
        return Lowered()

    monkeypatch.setattr(compiled_steps, "compile_train_step", compile_train_step)
    compile_for.needs(config, "v5e:1x2", 1)
    assert compiled == [backend]


def test_table_has_column_per_topology():
    one = compile_for.Needs("v5e:2x4", 8, "TPU v5 lite", 96, True, 16 * compile_for.GIB, 3 * 2**20, 61.0, flops=2.5e9)
    two = dataclasses.replace(one, topology="v5e:8x8", devices=64, collectives={"all-reduce": Collectives(104, 2**21)})
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in compile_for.table([one, two]).splitlines()]
    assert {len(line) for line in lines} == {3}
    rows = {line[0]: line[1:] for line in lines}
    assert rows["per device"] == ["v5e:2x4", "v5e:8x8"] and rows["devices"] == ["8 x TPU v5 lite", "64 x TPU v5 lite"]
    assert rows["**peak total**"] == ["**3 MiB**"] * 2 and rows["memory of the device"] == ["16,384 MiB"] * 2
    assert rows["all-reduce"] == ["-", "104, 2.0 MiB"] and rows["GFLOP, loop bodies once"] == ["2.5", "2.5"]


def test_missing_libtpu_raises(monkeypatch):
    monkeypatch.setattr(compile_for.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package libtpu: pip install -e '\.\[tpu-aot\]'"):
        compile_for.needs(tiny.config(), "v5e:2x4", 1)


def test_nonpositive_batch_raises():
    with pytest.raises(ConfigError, match="--batch_per_device=0 must be positive: give the number of samples per device"):
        compile_for.needs(tiny.config(), "v5e:2x4", 0)


@pytest.mark.parametrize("topology", ["v9:1x1", "v5e:3x5", "v5e", ""])
def test_unknown_topology_raises(topology):
    pytest.importorskip("libtpu", reason=NO_LIBTPU)
    with pytest.raises(ConfigError, match=rf"--topology={topology} is invalid \(.*\): use for example v5e:2x4") as error:
        compile_for.needs(tiny.config(), topology, 1)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_step_compiles_for_tpus():
    """Gradients are all-reduced, and the step fits."""
    pytest.importorskip("libtpu", reason=NO_LIBTPU)
    config = teacher_only()
    found = compile_for.needs(config, "v5e:2x2", 1)
    gradients = sum(x.size * 4 for x in jax.tree.leaves(compile_for.abstract_arguments(config, 4)[0].params))
    assert (found.devices, found.batch_size, found.fits, found.memory_bytes) == (4, 4, True, 16 * compile_for.GIB)
    assert found.collectives["all-reduce"].bytes > gradients and np.isfinite(found.flops)
