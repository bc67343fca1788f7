import jax
import pytest

from dd_jax.benchmarks import topologies
from dd_jax.benchmarks.topologies import GPUS
from dd_jax.config import ConfigError


def test_cpu_is_the_local_device_or_virtual_ones():
    assert topologies.devices_of("cpu") == topologies.devices_of("cpu:1") == jax.devices("cpu")[:1]
    assert topologies.devices_of("cpu:4") == jax.devices("cpu")[:4]


def test_missing_virtual_devices_raise():
    message = "--topology=cpu:1000 needs 1000 virtual devices, not .*: set XLA_FLAGS=--xla_force_host_platform_device_count=1000"
    with pytest.raises(ConfigError, match=message):
        topologies.devices_of("cpu:1000")
    with pytest.raises(ConfigError, match="--topology=cpu:2x2 is invalid: use cpu, or cpu:DEVICES as cpu:8"):
        topologies.devices_of("cpu:2x2")


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e:2x4", r"needs the package libtpu: pip install -e '\.\[tpu-aot\]'"),
        ("h100:8", r"needs the CUDA plugin of JAX: pip install -e '\.\[cuda-aot\]'"),
    ],
)
def test_missing_compiler_raises(monkeypatch, topology, message):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        topologies.devices_of(topology)


@pytest.mark.parametrize("topology", ["v9:1x1", "v5e:3x5", "v5e", ""])
def test_unknown_tpu_raises(topology):
    pytest.importorskip("libtpu", reason="needs libtpu: pip install -e '.[tpu-aot]'")
    with pytest.raises(ConfigError, match=rf"--topology={topology} is invalid \(.*\): use for example v5e:2x4") as error:
        topologies.devices_of(topology)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", ["", "0", "2x0", "2x", "x8", "1x2x8", "8 ", "-1"])
def test_wrong_number_of_gpus_raises(shape):
    with pytest.raises(ConfigError, match=f"--topology=h100:{shape} is invalid: use h100:CARDS or h100:MACHINESxCARDS"):
        topologies.devices_of(f"h100:{shape}")


@pytest.mark.parametrize(("kind", "shape", "machines"), [("h100", "8", 1), ("a100", "2x8", 2), ("h100", "128x8", 128)])
def test_gpus_of_a_topology(kind, shape, machines):
    pytest.importorskip("jax_cuda12_plugin", reason="needs the CUDA plugin: pip install -e '.[cuda-aot]'")
    devices = topologies.devices_of(f"{kind}:{shape}")
    assert len(devices) == 8 * machines and {device.process_index for device in devices} == set(range(machines))
    assert {device.device_kind for device in devices} == {GPUS[kind].name}


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_target_config_has_the_numbers_of_the_card(gpu):
    text = topologies.target_config(gpu)
    words = (f"core_count: {gpu.processors}\n", f"device_memory_size: {gpu.memory}\n", f"major: {gpu.compute_capability} }}")
    assert all(word in text for word in words) and text.count("{") == text.count("}")
    assert topologies.MEMORY[gpu.name] == gpu.memory
