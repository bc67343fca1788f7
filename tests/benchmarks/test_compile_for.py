import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.benchmarks import compile_for
from dd_jax.benchmarks.hlo import Collectives
from dd_jax.config import ConfigError
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state
from dd_jax.runtime import parallel

NO_LIBTPU = "needs libtpu: pip install -e '.[tpu-aot]'"


@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_abstract_arguments_match_training(backend):
    config = tiny.config(train={"backend": backend}, data={"batch_size": 4})
    state, batch = compile_for.abstract_arguments(config, 2)
    given = parallel.shard_batch(tiny.batch(4), config, jax.devices()[:2])
    kinds = partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert kinds(batch) == kinds(given) and kinds(state) == kinds(create_state(config))


def teacher_only():
    return tiny.config(model={"student": False}, domd={"enabled": False}, optim={"freeze_step": -1})


@pytest.fixture
def small_step(monkeypatch):
    """Two CPU devices as the topology, and a step that adds the batch to a parameter."""
    devices = jax.devices()[:2]
    monkeypatch.setattr(compile_for, "devices_of", lambda topology: devices)

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


class FailingStep:
    """A step that sorts, and whose compilation fails with ``message``."""

    def __init__(self, message: str):
        self.message = message

    def lower(self, *_):
        return self

    def compiler_ir(self, dialect):
        return jax.jit(jnp.sort).lower(jnp.ones(3)).compiler_ir(dialect)

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.message)


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_out_of_memory_message_parsed(small_step, monkeypatch, message):
    monkeypatch.setattr(compiled_steps, "compile_train_step", lambda *_: FailingStep(message))
    found = compile_for.needs(teacher_only(), "v5e:1x2", 3)
    assert not found.fits and found.total_bytes == int(20.5 * 2**30) and found.flops is None
    assert found.given == {"sort": 1} and found.compiled is None
    assert "| **fits** | **no** |" in compile_for.table([found]) and "program" not in compile_for.table([found])
    monkeypatch.setattr(compiled_steps, "compile_train_step", lambda *_: FailingStep("INTERNAL: something else"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        compile_for.needs(teacher_only(), "v5e:1x2", 3)


@pytest.mark.parametrize(("hosts", "backend"), [([0, 0], "pmap"), ([0, 1], "jit")])
def test_several_hosts_get_jit(monkeypatch, hosts, backend):
    config, compiled = teacher_only(), []
    devices = [SimpleNamespace(process_index=host, device_kind="any", platform="tpu") for host in hosts]
    monkeypatch.setattr(compile_for, "devices_of", lambda _: devices)

    def compile_train_step(config, *_):
        compiled.append(config.train.backend)
        return FailingStep(OUT_OF_MEMORY[0])

    monkeypatch.setattr(compiled_steps, "compile_train_step", compile_train_step)
    compile_for.needs(config, "v5e:1x2", 1)
    assert compiled == [backend]


def test_operations_of_step_counted_with_their_sources(small_step, monkeypatch):
    """Two scatters outside the package, which the CPU's compiler turns into loops."""

    def body(state, batch):
        twice = state.depth_range.at[jnp.array([0, 0])].add(1.0)
        return state.replace(depth_range=twice.at[jnp.array([1, 1])].max(2.0)), {}

    monkeypatch.setattr(compiled_steps, "compile_train_step", lambda *_: jax.pmap(body, in_axes=(None, 0), out_axes=None))
    given = compile_for.needs(teacher_only(), "h100:2", 1, compiled=False)
    assert given.scatters == [("scatter-add", "", 1), ("scatter-max", "", 1)]
    assert given.given == {"scatter-add": 1, "scatter-max": 1}
    assert (given.compiled, given.fits, given.total_bytes, given.compile_seconds) == (None,) * 4
    compiled = compile_for.needs(teacher_only(), "h100:2", 1)
    assert compiled.given == given.given and "scatter-add" not in compiled.compiled and compiled.compiled["while"] == 2
    assert "| scatter-add, before and after the compiler | 1, - | 1, 0 |" in compile_for.table([given, compiled])
    assert compile_for.scatter_list([given]).splitlines() == [f"1 scatter-{kind}: outside the package" for kind in ("add", "max")]


def test_no_scatters_are_said_to_be_none():
    assert compile_for.scatter_list([compile_for.Needs("cpu", 1, "cpu", 1, None, [], {})]) == "no scatter"


def test_table_has_column_per_topology():
    one = compile_for.Needs(
        *("v5e:2x4", 8, "TPU v5 lite", 96, 16 * 2**30, [], {"sort": 2, "while": 1}),
        **{"compiled": {"sort": 2, "copy": 7}, "fits": True, "total_bytes": 3 * 2**20, "compile_seconds": 61.0, "flops": 2.5e9},
    )
    two = dataclasses.replace(one, topology="v5e:8x8", devices=64, collectives={"all-reduce": Collectives(104, 2**21)})
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in compile_for.table([one, two]).splitlines()]
    assert {len(line) for line in lines} == {3}
    rows = {line[0]: line[1:] for line in lines}
    assert rows["per device"] == ["v5e:2x4", "v5e:8x8"] and rows["devices"] == ["8 x TPU v5 lite", "64 x TPU v5 lite"]
    assert rows["**peak total**"] == ["**3 MiB**"] * 2 and rows["memory of the device"] == ["16,384 MiB"] * 2
    assert rows["all-reduce"] == ["-", "104, 2.0 MiB; 0 of them, 0.0 MiB, overlapped"] and rows["GFLOP, loop bodies once"] == [
        "2.5",
        "2.5",
    ]
    slow = {name.split(",")[0]: cells for name, cells in rows.items() if "before and after" in name}
    assert slow == {"copy": ["0, 7"] * 2, "sort": ["2, 2"] * 2, "while": ["1, 0"] * 2}
    assert "outputs" not in rows and "GB accessed, loop bodies once" not in rows


def test_nonpositive_batch_raises():
    with pytest.raises(ConfigError, match="--batch_per_device=0 must be positive: give the number of samples per device"):
        compile_for.needs(tiny.config(), "v5e:2x4", 0)


@pytest.mark.slow
def test_step_compiles_for_tpus():
    """Gradients are all-reduced, and the step fits."""
    pytest.importorskip("libtpu", reason=NO_LIBTPU)
    config = teacher_only()
    found = compile_for.needs(config, "v5e:2x2", 1)
    gradients = sum(x.size * 4 for x in jax.tree.leaves(compile_for.abstract_arguments(config, 4)[0].params))
    assert (found.devices, found.batch_size, found.fits, found.memory_bytes) == (4, 4, True, 16 * 2**30)
    assert found.collectives["all-reduce"].bytes > gradients and np.isfinite(found.flops)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["h100:2", "a100:2x2"])
def test_step_compiles_for_gpus(topology):
    """Gradients are all-reduced, and the step fits; the compiler does not count operations for GPUs."""
    pytest.importorskip("jax_cuda12_plugin", reason="needs the CUDA plugin: pip install -e '.[cuda-aot]'")
    config = teacher_only()
    found = compile_for.needs(config, topology, 1)
    gradients = sum(x.size * 4 for x in jax.tree.leaves(compile_for.abstract_arguments(config, found.devices)[0].params))
    assert found.devices == found.batch_size and found.fits and found.total_bytes > found.argument_bytes and found.flops is None
    assert found.collectives["all-reduce"].bytes > gradients and found.compiled["copy"] > 0
