"""The parts of a training step: time by ``jax.named_scope``, read from the profiler.

The profiler records when each HLO instruction ran, and the compiled program says in which scope of the source each instruction
was traced. Where instructions run at the same time, each gets an equal share of it, so the parts add up to the step.
"""

import dataclasses
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData, ProfileOptions

SCOPES = (
    "augment", "poses", "teacher", "domd", "features", "cost_volume", "student", "flow", "views", "losses", "optimizer",
)  # fmt: skip
"""Names of the scopes in ``dd_jax/method``; of nested scopes the innermost counts."""

OTHER = "other"
"""Instructions outside all scopes."""

CONTROL_FLOW = ("while", "conditional", "call")
"""HLO operations whose time is that of the instructions inside."""

Interval = tuple[str, float, float]
"""HLO instruction, and when it started and ended, in seconds."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Time of one scope, per step."""

    name: str
    forward_seconds: float
    backward_seconds: float
    of_step: float  # share of the time of all instructions


def measure(compiled: jax.stages.Compiled, run: Callable[[], Any], repeats: int) -> list[Part]:
    """Profiles ``repeats`` calls of ``run``, which executes ``compiled`` once; parts in the order of :data:`SCOPES`.

    Empty if the profiler of this device records no HLO instructions.
    """
    sources = instruction_scopes(compiled.as_text())
    intervals = [interval for interval in trace(run, repeats) if interval[0] in sources]
    seconds: dict[str, dict[bool, float]] = defaultdict(lambda: {False: 0.0, True: 0.0})
    for instruction, time in shared_times(intervals).items():
        scope, backward = sources[instruction]
        seconds[scope][backward] += time / repeats
    total = sum(sum(both.values()) for both in seconds.values())
    return [
        Part(name, seconds[name][False], seconds[name][True], sum(seconds[name].values()) / total)
        for name in (*SCOPES, OTHER)
        if name in seconds
    ]


def instruction_scopes(hlo: str) -> dict[str, tuple[str, bool]]:
    """Scope of every instruction in the text of a compiled module, and whether it is of the backward pass.

    Instructions that the compiler added without an ``op_name``, such as transposes around a convolution, get that of their
    first user.
    """
    found, inherited = {}, {}
    for line in reversed(hlo.splitlines()):  # users come after their operands
        instruction = re.match(r"\s*(?:ROOT )?%?([\w.-]+) = .*? ([a-z][\w-]*)\((.*)", line)
        if instruction is None:
            continue
        name, operation, rest = instruction.groups()
        source = re.search(r'op_name="([^"]*)"', rest)
        op_name = source[1] if source else inherited.get(name, "")
        if op_name:
            inherited |= dict.fromkeys(re.findall(r"%([\w.-]+)", rest.partition("metadata=")[0]), op_name)
        if operation not in CONTROL_FLOW:
            found[name] = scope_of(op_name)
    return found


def scope_of(op_name: str) -> tuple[str, bool]:
    """Innermost scope of an ``op_name`` such as ``jit(step)/transpose(jvp(teacher))/mul``, and whether it is backward.

    A forward pass that is computed again for the backward pass (``train.remat``) counts as backward.
    """
    path = op_name.partition(";")[0]
    names = [name for name in re.split(r"[/()]", path) if name in SCOPES]
    return names[-1] if names else OTHER, "transpose(" in path or "rematted_computation" in path


def trace(run: Callable[[], Any], repeats: int) -> list[Interval]:
    """When each HLO instruction ran during ``repeats`` calls of ``run``."""
    options = ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(repeats):
                result = run()
            jax.block_until_ready(result)
        (path,) = Path(folder).rglob("*.xplane.pb")
        return intervals_in(ProfileData.from_file(str(path)).planes)


def intervals_in(planes: Iterable[Any]) -> list[Interval]:
    """Instructions in a profile; with planes of accelerators only theirs, as the host's then have the launches of the same."""
    planes = list(planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    instructions, ends = [], {}
    for event in (event for plane in devices or planes for line in plane.lines for event in line.events):
        stats = dict(event.stats)
        name = stats.get("hlo_op")
        if name is None and devices and (named := re.match(r"%?([\w.-]+)", event.name)):  # TPU: the text of its HLO
            name = named[1]
        if name is not None:
            start = event.start_ns
            instructions.append((name, start, start + event.duration_ns, stats.get("_p")))
        elif event.name.startswith("end: "):  # CPU: the event above may end when the work has been handed to other threads
            ends[stats.get("_c")] = event.start_ns
    return [(name, start / 1e9, max(end, ends.get(key, end)) / 1e9) for name, start, end, key in instructions]


def shared_times(intervals: Iterable[Interval]) -> dict[str, float]:
    """Seconds by instruction; time in which several run is divided equally among them."""
    intervals = list(intervals)
    changes = sorted(
        change
        for index, (_, start, end) in enumerate(intervals)
        if start < end
        for change in ((start, True, index), (end, False, index))
    )
    seconds: dict[str, float] = defaultdict(float)
    running: set[int] = set()
    last = 0.0
    for time, starts, index in changes:
        for other in running:
            seconds[intervals[other][0]] += (time - last) / len(running)
        last = time
        if starts:
            running.add(index)
        else:
            running.discard(index)
    return dict(seconds)


def table(parts: list[Part]) -> str:
    """Milliseconds per step and share of every part."""
    if not parts:
        return "parts of the step: the profiler records no instructions on this device"
    lines = ["part of the step    forward     backward   share"]
    for part in parts:
        forward, backward = 1000 * part.forward_seconds, 1000 * part.backward_seconds
        lines.append(f"{part.name:14} {forward:9.1f} ms {backward:9.1f} ms {part.of_step:7.1%}")
    return "\n".join(lines)
