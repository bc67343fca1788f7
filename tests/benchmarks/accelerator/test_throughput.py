import jax
import jax.numpy as jnp
import pytest
import tiny

from dd_jax.benchmarks import programs
from dd_jax.benchmarks.accelerator import throughput
from dd_jax.benchmarks.accelerator.task import Task
from dd_jax.benchmarks.programs import Program
from dd_jax.config import ConfigError

IN_TIME = 1e12


def task(tmp_path, deadline=IN_TIME, **fields):
    return Task(tiny.config(**fields), tmp_path, "cpu", deadline)


@pytest.fixture
def sizes(monkeypatch):
    """Steps and predictions that only add; from 8 samples on they ask for more memory than any machine has."""
    measured = []

    def program(samples):
        measured.append(samples)
        add = jax.jit(lambda x: x + 1).lower(jnp.zeros(samples)).compile()

        def run():
            return jnp.zeros(1 << 45) if samples >= 8 else add(jnp.zeros(samples))

        return Program(run, add, 0.5)

    monkeypatch.setattr(programs, "training_step", lambda config, devices: program(config.data.batch_size))
    monkeypatch.setattr(programs, "prediction", lambda config, state, batch_size: program(batch_size))
    monkeypatch.setattr(throughput, "create_state", lambda config: ())
    monkeypatch.setattr(programs.seconds_per_run, "__defaults__", (0.01,))
    return measured


@pytest.mark.parametrize("measure", [throughput.steps, throughput.predictions])
def test_batch_sizes_double_until_memory_ends(tmp_path, sizes, measure):
    rows = list(measure(task(tmp_path)))
    assert sizes == [1, 2, 4, 8]
    assert [row["what"] for row in rows] == ["batch 1", "batch 2", "batch 4", "batch 8"]
    assert all(row["images_per_second"] > 0 and row["compile_seconds"] == 0.5 for row in rows[:3])
    assert rows[3] == {"what": "batch 8", "note": "out of memory"}


def test_batch_sizes_are_multiples_of_the_microbatches(tmp_path, sizes):
    assert [row["what"] for row in throughput.steps(task(tmp_path, train={"microbatches": 2}))][:2] == ["batch 2", "batch 4"]


def test_memory_of_a_cpu_is_that_of_the_machine(tmp_path, sizes, monkeypatch):
    monkeypatch.setattr(throughput, "free_bytes", lambda: 10)
    assert list(throughput.steps(task(tmp_path)))[-1] == {"what": "batch 4", "note": "out of memory"}


def test_series_ends_with_the_time(tmp_path, sizes, monkeypatch):
    left = iter([100, 0])
    monkeypatch.setattr(Task, "left", lambda self: next(left))
    rows = list(throughput.steps(task(tmp_path)))
    assert [row["what"] for row in rows] == ["batch 1", "batch 2"] and rows[1]["note"] == "not run: no time"


def test_failed_option_does_not_stop_the_others(tmp_path, monkeypatch):
    def training_step(config, devices):
        if config.train.remat == "blocks":
            raise ConfigError("cannot be done")
        assert config.data.batch_size == 8
        return Program(None, jax.jit(jnp.sin).lower(jnp.zeros(config.cost_volume.bins)).compile(), 0.5)

    monkeypatch.setattr(programs, "training_step", training_step)
    rows = {row.pop("what"): row for row in throughput.memory(task(tmp_path, data={"batch_size": 6}))}
    assert list(rows) == ["as configured, batch 8", *throughput.MEMORY_OPTIONS[1:]]
    assert rows["train.remat=blocks"] == {"note": "failed: cannot be done"}
    more, fewer = (rows[name]["peak_by_compiler_bytes"] for name in ("cost_volume.bins=48", "as configured, batch 8"))
    assert more - fewer == 4 * (48 - 8)


def test_all_devices_get_as_many_samples_each(tmp_path, sizes):
    one, all_devices = throughput.devices(task(tmp_path, data={"batch_size": 4}, train={"backend": "jit"}))
    assert (one["what"], one["efficiency_share"]) == ("1 x cpu", 1.0)
    assert all_devices == {"what": "8 x cpu", "note": "out of memory"} and sizes == [4, 32]
