"""The Markdown table of a run."""

from typing import Any

from dd_jax.benchmarks.accelerator.task import Row

LISTED = 5
"""Failures that a table names; the JSON file has all."""


def text_of(row: Row) -> str:
    """The figures of a row, or its note."""
    return ", ".join(figure(name, value) for name, value in row.items() if name != "what")


def figure(name: str, value: Any) -> str:
    """A value with the unit that its name ends with."""
    words = name.replace("_", " ")
    if name == "note":
        return str(value)
    if isinstance(value, list):
        more = [f"and {len(value) - LISTED} more"] if len(value) > LISTED else []
        return f"{words}: " + "; ".join(map(str, [*value[:LISTED], *more]))
    if name.endswith("_per_second"):
        return f"{value:.4g} {words.removesuffix(' per second')}/s"
    if name.endswith("_seconds"):
        return f"{words.removesuffix(' seconds')} {value:.3g} s"
    if name.endswith("_bytes"):
        size = f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
        return f"{words.removesuffix(' bytes')} {size}"
    if name.endswith("_share"):
        return f"{words.removesuffix(' share')} {value:.1%}"
    if isinstance(value, float):
        return f"{words} {value:.3g}"
    return f"{words} {value}"


def markdown(report: dict[str, Any]) -> str:
    """One table of all rows, below a line that says what was measured when."""
    lines = [f"`{report['command']}`, {report['config']}, {report['date']}, commit `{report['commit']}`:", ""]
    lines += ["| measurement | of | result |", "|---|---|---|"]
    for name, found in report["measurements"].items():
        rows = [[row["what"], text_of(row)] for row in found["rows"]]
        if found["state"] != "done":
            rows.append(["", found["state"]])
        for place, cells in enumerate(rows):
            lines.append(f"| {' | '.join(['' if place else name, *(cell.replace('|', '/') for cell in cells)])} |")
    return "\n".join(lines) + "\n"
