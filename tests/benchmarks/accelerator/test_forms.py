import time

import jax
import pytest
import tiny

from dd_jax.benchmarks import programs
from dd_jax.benchmarks.accelerator import forms as measured
from dd_jax.benchmarks.accelerator.task import Task
from dd_jax.runtime import forms


@pytest.fixture(scope="module")
def operations():
    return measured.operations(tiny.config(data={"batch_size": 2}, cost_volume={"bins": 20}))


def test_every_operation_has_a_program(operations):
    assert operations.keys() == forms.OPERATIONS.keys()


@pytest.mark.parametrize("operation", list(forms.OPERATIONS))
def test_program_of_an_operation_contains_its_forms(operations, operation):
    function, arrays = operations[operation]
    texts = set()
    for form in forms.OPERATIONS[operation]:
        with forms.use(**{operation: form}):
            texts.add(jax.jit(function).lower(*arrays).as_text())
    assert len(texts) == len(forms.OPERATIONS[operation])


def test_rows_compare_all_forms_with_the_chosen_one(tmp_path, monkeypatch):
    taken = []

    def training_step(config, devices):
        taken.append(forms.choose("z_buffer", {"min": lambda x: "min", "max": lambda x: "max"}, jax.numpy.zeros(())))
        return programs.Program(lambda: time.sleep(0.01), None, 1.0)

    monkeypatch.setenv(forms.VARIABLE, "z_buffer=min")
    monkeypatch.setattr(measured, "LEAST", 0.001)
    monkeypatch.setattr(programs, "training_step", training_step)
    monkeypatch.setattr(measured, "operations", lambda config: dict.fromkeys(forms.OPERATIONS, (lambda x: x + 1, (1.0,))))
    rows = {row.pop("what"): row for row in measured.measure(Task(tiny.config(), tmp_path, "cpu", 1e12))}
    assert list(rows) == [*forms.OPERATIONS, *(f"step, forms of {backend}" for backend in forms.BACKENDS)]
    assert list(rows["z_buffer"]) == ["chosen_seconds", "min_seconds", "max_seconds"]
    assert list(rows["step, forms of gpu"]) == ["chosen_seconds", "gpu_seconds"]
    assert sorted(taken) == ["max", *["min"] * 5], "only the forms of the GPU have this maximum"
