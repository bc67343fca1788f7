import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from dd_jax.benchmarks import parts


@pytest.mark.parametrize(
    ("op_name", "expected"),
    [
        ("jit(step)/jvp(teacher)/conv_general_dilated", ("teacher", False)),
        ("jit(step)/transpose(jvp(teacher))/mul", ("teacher", True)),
        ("jit(step)/jvp(teacher)/transpose", ("teacher", False)),
        ("jit(step)/transpose(jvp(losses))/views/mul;jit(step)/jvp(teacher)/add", ("views", True)),
        ("jit(step)/jvp(student)/rematted_computation/add", ("student", True)),
        ("jit(step)/while/body/vmap(cost_volume)/add", ("cost_volume", False)),
        ("jit(teacher_like)/add", ("other", False)),
        ("", ("other", False)),
    ],
)
def test_innermost_scope_and_direction(op_name, expected):
    assert parts.scope_of(op_name) == expected


def test_unnamed_instruction_gets_scope_of_first_user():
    hlo = """
  %copy.1 = f32[8]{0} copy(%x)
  %convolution.2 = f32[8]{0} convolution(%copy.1, %y), window={size=3}
  %fusion.3 = f32[8]{0} fusion(%convolution.2), kind=kLoop, calls=%f, metadata={op_name="jit(f)/transpose(jvp(teacher))/mul"}
  ROOT %add.4 = f32[8]{0} add(%convolution.2, %fusion.3), metadata={op_name="jit(f)/losses/add"}
"""
    teacher, losses = ("teacher", True), ("losses", False)
    expected = {"copy.1": teacher, "convolution.2": teacher, "fusion.3": teacher, "add.4": losses}
    assert parts.instruction_scopes(hlo) == expected


def test_overlapping_time_divided():
    seconds = parts.shared_times([("a", 0.0, 4.0), ("b", 2.0, 4.0), ("a", 6.0, 7.0), ("c", 6.0, 6.0)])
    assert seconds == pytest.approx({"a": 2 + 1 + 1, "b": 1})


def loss(weight, x):
    """The student is a loop of many small products, the teacher one large product."""
    with jax.named_scope("teacher"):
        x = jnp.tanh(x @ weight)
    with jax.named_scope("student"):
        x, _ = jax.lax.scan(lambda x, _: (jnp.sin(x @ weight), None), x[:64], None, length=3)
    with jax.named_scope("losses"):
        return jnp.mean(x**2)


@pytest.fixture(scope="module")
def measured():
    def step(weight, x):
        gradient = jax.grad(loss)(weight, x)
        with jax.named_scope("optimizer"):
            return weight - 0.1 * jnp.sign(gradient)

    weight, x = jnp.eye(256), jnp.ones((8192, 256))
    compiled = jax.jit(step).lower(weight, x).compile()
    return compiled.as_text(), parts.measure(compiled, lambda: compiled(weight, x), 2)


def test_parts_of_a_profiled_step(measured):
    _, found = measured
    by_name = {part.name: part for part in found}
    assert {"teacher", "student", "optimizer"} <= by_name.keys() <= {"teacher", "student", "losses", "optimizer", "other"}
    assert [part.name for part in found] == [name for name in (*parts.SCOPES, parts.OTHER) if name in by_name]
    assert all(by_name[name].forward_seconds > 0 and by_name[name].backward_seconds > 0 for name in ("teacher", "student"))
    assert by_name["optimizer"].backward_seconds == 0 < by_name["optimizer"].forward_seconds
    assert by_name["teacher"].of_step > by_name["optimizer"].of_step
    assert sum(part.of_step for part in found) == pytest.approx(1)


def test_control_flow_time_not_counted(measured):
    hlo, _ = measured
    loops = set(re.findall(r"%([\w.-]+) = .* while\(", hlo))
    assert loops and not loops & parts.instruction_scopes(hlo).keys()


def profile(plane, *events):
    """A plane with events (name, start in ns, duration, stats) in one line."""
    events = [SimpleNamespace(name=name, start_ns=start, duration_ns=time, stats=stats) for name, start, time, stats in events]
    return SimpleNamespace(name=plane, lines=[SimpleNamespace(events=events)])


def test_launches_by_the_host_are_not_counted_on_accelerators():
    op = [("hlo_op", "fusion.1")]
    host = profile("/host:CPU", ("cuLaunchKernel", 0, 9e9, op))
    gpu = profile("/device:GPU:0", ("loop_fusion_1", 1e9, 2e9, op))
    tpu = profile("/device:TPU:0", ("%fusion.1 = f32[8]{0} fusion(%x)", 1e9, 2e9, []))
    assert parts.intervals_in([host, gpu]) == parts.intervals_in([host, tpu]) == [("fusion.1", 1.0, 3.0)]
    assert parts.intervals_in([host]) == [("fusion.1", 0.0, 9.0)]


def test_device_without_instruction_events(monkeypatch):
    monkeypatch.setattr(parts, "trace", lambda run, repeats: [])
    compiled = jax.jit(jnp.sin).lower(1.0).compile()
    assert parts.measure(compiled, lambda: None, 1) == []
    assert "no instructions" in parts.table([])


def test_table_aligned():
    heading, *rows = parts.table(
        [parts.Part("teacher", 0.125, 1.25, 0.75), parts.Part("cost_volume", 0.0, 0.0125, 0.25)]
    ).splitlines()
    assert [row.split() for row in rows] == [
        ["teacher", "125.0", "ms", "1250.0", "ms", "75.0%"],
        ["cost_volume", "0.0", "ms", "12.5", "ms", "25.0%"],
    ]
    assert len({len(line) for line in (heading, *rows)}) == 1
