"""Files that are there completely or not at all."""

from pathlib import Path

PARTIAL = ".partial"


def replace(path: Path, data: bytes | str) -> None:
    """Writes ``path`` under another name and renames it, so that a killed process leaves no half of a file; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL}")
    partial.write_bytes(data.encode() if isinstance(data, str) else data)
    partial.replace(path)
