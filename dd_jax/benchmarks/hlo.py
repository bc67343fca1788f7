"""Account of a program from its text (HLO), as given to the compiler or as compiled: operations, their sources, communication.

The body of a loop counts once, whatever the number of iterations, and a computation as often as others call it.
"""

import collections
import dataclasses
import math
import re
from pathlib import Path

OPERATIONS = ("scatter", "select-and-scatter", "gather", "sort", "while", "conditional", "transpose", "copy", "copy-start")
"""Operations that are slow on accelerators, or passes over memory. ``select-and-scatter`` is the gradient of a maximum over
windows."""

COMBINERS = {"add": "add", "minimum": "min", "maximum": "max", "multiply": "mul", "and": "and", "or": "or"}
"""How a scatter combines values at one place, by operation; without one of these it keeps the last: ``set``."""

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")

COMPUTATIONS = ("fusion", "custom-call", "convolution", "dot", "while", "conditional", "scatter", "sort", "reduce")
"""Operations that take a device's time, in a compiled program."""

ITEM_BYTES = {"pred": 1, "bf16": 2, "s8": 1, "u8": 1, "c64": 8, "c128": 16} | {
    f"{kind}{8 * size}": size for kind in "fsu" for size in (2, 4, 8)
}

PACKAGE = str(Path(__file__).parents[1])


@dataclasses.dataclass(frozen=True)
class Collectives:
    """All collectives of one kind."""

    count: int
    bytes: int  # of the results on each device, whatever the network topology transfers
    overlapped: int = 0  # of them, how many run while the device computes
    overlapped_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    opcode: str
    frame: int  # of the program's table of stack frames; 0: unknown
    called: tuple[str, ...]  # names of computations


def operations(hlo: str) -> dict[tuple[str, str], int]:
    """Number of :data:`OPERATIONS` in a program by kind and source line; scatters with their combiner, as ``scatter-add``.

    The source is the innermost line of this package and the line of another file that calls it (``geometry/sampling.py:23 from
    method/domd.py:65``), "" where the program has none; the gradient of an operation has the line of the operation.
    """
    computations, entry = _computations(hlo)
    lines = _source_lines(hlo)
    found: dict[str, collections.Counter] = {}

    def count(name: str) -> collections.Counter:
        if name not in found:
            own: collections.Counter = collections.Counter()
            for instruction in computations[name]:
                line = lines.get(instruction.frame, "")
                if instruction.opcode in OPERATIONS:
                    own[_kind(instruction, computations), line] += 1
                for called in instruction.called:
                    for (kind, source), number in count(called).items():
                        own[kind, source or line] += number
            found[name] = own
        return found[name]

    return dict(count(entry)) if entry else {}


def by_kind(found: dict[tuple[str, str], int]) -> dict[str, int]:
    """:func:`operations` without the sources."""
    total: collections.Counter = collections.Counter()
    for (kind, _), number in found.items():
        total[kind] += number
    return dict(sorted(total.items()))


def collectives_of(hlo: str) -> dict[str, Collectives]:
    """Collectives in the text of a compiled module, by kind; those in loops separately (``all-reduce in loops``).

    An asynchronous one is overlapped if the schedule, which is the order of the text, has computations between start and end.
    Programs for GPUs write a synchronous one with start and end too, marked ``is_sync``.
    """
    found: dict[str, Collectives] = {}
    pattern = re.compile(rf"(%?\S+) = (.+?) ({'|'.join(COLLECTIVES)})(-start)?\(")
    computes = re.compile(rf" (?:{'|'.join(COMPUTATIONS)})\(")
    running: dict[str, tuple[str, int]] = {}  # names of the started ones -> kinds and bytes
    for line in hlo.splitlines():
        match = pattern.search(line)
        if not match:
            if computes.search(line):
                for kind, size in running.values():
                    now = found[kind]
                    found[kind] = Collectives(now.count, now.bytes, now.overlapped + 1, now.overlapped_bytes + size)
                running = {}
            elif done := re.search(r"-done\((%?[^\s,)]+)", line):
                running.pop(done[1], None)
            continue
        variable, result, kind, start = match.groups()
        name = re.search(r'op_name="([^"]*)"', line)
        if name and "/while/" in name[1]:
            kind += " in loops"
        sizes = shape_bytes(result)
        # The asynchronous form, except of the all-reduce, returns its operand in addition to the result.
        size = max(sizes) if start and not kind.startswith("all-reduce") else sum(sizes)
        before = found.get(kind, Collectives(0, 0))
        found[kind] = dataclasses.replace(before, count=before.count + 1, bytes=before.bytes + size)
        if start and '"is_sync":true' not in line:
            running[variable] = kind, size
    return found


def shape_bytes(text: str) -> list[int]:
    """Bytes of every array in the text of a shape such as ``(f32[8,3]{1,0:T(8,128)}, pred[])``."""
    return [
        ITEM_BYTES.get(kind, 1) * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in re.findall(r"\b([a-z][a-z0-9]*)\[([0-9,]*)\]", text)
    ]


def _kind(instruction: Instruction, computations: dict[str, list[Instruction]]) -> str:
    if instruction.opcode != "scatter":
        return instruction.opcode
    combiner = [line.opcode for name in instruction.called for line in computations[name]]
    return f"scatter-{next((COMBINERS[opcode] for opcode in combiner if opcode in COMBINERS), 'set')}"


def _computations(hlo: str) -> tuple[dict[str, list[Instruction]], str]:
    """The instructions of every computation, and the name of the one that is the program."""
    header = re.compile(r"(ENTRY )?%?([^\s(]+) \(.*\) -> .*\{$")
    line_of = re.compile(r"  (?:ROOT )?%?\S+ = .+? ([a-z][a-z0-9-]*)\(")
    attribute = re.compile(r"(?:calls|to_apply|body|condition|\w+_computations?)=(\{[^}]*\}|%?[^\s,]+)")
    computations: dict[str, list[Instruction]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if match := header.match(line):
            name = match[2]
            computations[name] = []
            entry = name if match[1] else entry
        elif match := line_of.match(line):
            frame = re.search(r"stack_frame_id=(\d+)", line)
            called = re.findall(r"%?([^\s,{}%]+)", " ".join(attribute.findall(line)))
            computations[name].append(Instruction(match[1], int(frame[1]) if frame else 0, tuple(called)))
    return computations, entry


def _source_lines(hlo: str) -> dict[int, str]:
    """The source, as :func:`operations` gives it, of the stack frames in the program's tables that have one."""

    def rows(title: str) -> dict[int, str]:
        section = re.search(rf"^{title}\n((?:\d+ .*\n)+)", hlo, re.MULTILINE)
        return {int(row[0]): row[1] for row in (line.split(" ", 1) for line in section[1].splitlines())} if section else {}

    def numbers(row: str) -> list[int]:
        return [int(number) for number in re.findall(r"=(\d+)", row)]

    files = {number: name.strip('"') for number, name in rows("FileNames").items()}
    places = {number: numbers(row) for number, row in rows("FileLocations").items()}
    frames = {number: numbers(row) for number, row in rows("StackFrames").items()}

    def source(frame: int) -> str:
        lines: dict[str, int] = {}  # of two files of this package; benchmarks/ only asks for the program, forms.py for a form
        while frame and len(lines) < 2:
            place, parent = frames[frame]
            file, _, line = places[place][:3]
            inside = files[file].removeprefix(f"{PACKAGE}/")
            if inside != files[file] and not inside.startswith(("benchmarks/", "runtime/forms.py")):
                lines.setdefault(inside, line)
            frame = parent - 1  # parents are numbered from 2
        return " from ".join(f"{file}:{line}" for file, line in lines.items())

    return {frame: found for frame in frames if (found := source(frame))}
