import jax.numpy as jnp
import pytest
import tiny
from small_runs import make_state

from dd_jax.benchmarks import programs
from dd_jax.benchmarks.accelerator import loading
from dd_jax.benchmarks.accelerator.task import Task
from dd_jax.benchmarks.programs import Program


def test_loop_waits_for_batches_if_the_step_is_faster_than_the_loader(tmp_path, monkeypatch):
    """The step takes no time; the config's own data do not matter."""
    shapes = []

    def step(state, batch):
        shapes.append(batch.images.shape)
        return state, jnp.zeros(())

    monkeypatch.setattr(programs, "training_step", lambda config, devices: Program(lambda: jnp.zeros(()), step, 1.0))
    monkeypatch.setattr(loading, "create_state", lambda config: make_state(0))
    monkeypatch.setattr(loading, "SECONDS", 0.3)
    monkeypatch.setattr(loading, "cores", lambda: 3)
    monkeypatch.setattr(programs.seconds_per_run, "__defaults__", (0.01,))
    config = tiny.config(
        data={"source": "cityscapes", "root": "missing", "frame_step": 2, "batch_size": 2}, train={"backend": "jit"}
    )
    two, three, alone, both = loading.measure(Task(config, tmp_path, "cpu", 1e12))
    assert (two["what"], three["what"], alone["what"]) == ("loader, 2 threads", "loader, 3 threads", "step, batch 2")
    assert two["images_per_second"] == pytest.approx(2 / two["batch_seconds"])
    assert both["what"] == f"both, {3 if three['batch_seconds'] < two['batch_seconds'] else 2} threads"
    assert both["slower_share"] > 0 and 0.3 < both["waiting_for_batches_share"] < 1
    assert set(shapes) == {(2, 3, tiny.HEIGHT, tiny.WIDTH, 3)}
