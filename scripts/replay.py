"""Runs a training step again, in one process on one device, and says what in it was not finite.

    python scripts/replay.py --run=runs/kitti --step=123 [--exact] [--operations] [--data_root=DIR]
    python scripts/replay.py --run=runs/kitti/skipped/step_000123.safetensors

Prints every loss term, the gradient norm of every network, the first parameter whose gradient is not finite, the ranges of the
images, intrinsics, depth and motion of every sample, and which sample does it. A step that training skipped was saved; any other
one is reached by training from the newest checkpoint before it. See docs/reliability.md.
"""

import re
from pathlib import Path

from dd_jax.config import ConfigError
from dd_jax.runtime import command_line, compilation_cache
from dd_jax.training import replay


def main(arguments: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--run", required=True, type=Path, help="folder of a run, or a saved step in it")
    parser.add_argument("--step", type=command_line.positive, help="of training, from 1; not with a saved step")
    parser.add_argument("--exact", action="store_true", help="train up to the step again from the newest checkpoint before it")
    parser.add_argument("--operations", action="store_true", help="find the first operation that gives a NaN: minutes more")
    parser.add_argument("--data_root", default="", help="folder of the data set, if it differs from that of the run")
    flags = parser.parse_args(arguments)
    with command_line.job(), command_line.own_flags():
        workdir, number = place(flags.run, flags.step)
        for line in replay.report(replay.load(workdir, number, flags.exact, flags.data_root), flags.operations):
            print(line, flush=True)


def place(run: Path, step: int | None) -> tuple[Path, int]:
    """Folder of the run and number of the step, also if ``run`` is a saved step."""
    saved = re.fullmatch(r"step_(\d+)(\.process\d+)?\.safetensors", run.name)
    if saved and run.is_file():
        return run.parents[1], int(saved[1])
    if not run.is_dir():
        raise ConfigError(f"--run={run} is not a folder: name the folder of a run, or a file of its folder skipped")
    if step is None:
        raise ConfigError(f"--run={run} needs a step: add --step=N, or name a file of its folder skipped")
    return run, step


if __name__ == "__main__":
    compilation_cache.enable()
    main()
