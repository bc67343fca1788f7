"""Trains in stages, each of which starts from the previous one; evaluates and diagnoses the last. The same command continues.

    python scripts/train_stages.py --recipe=configs/recipe.py:rendered --workdir=runs/rendered \\
        --data_root=data/large --render=large

For a limited time, with what another machine needs to continue in --out, and there:

    ... --minutes=8 --out=handed_back
    ... --minutes=8 --out=handed_back --from=handed_back

Any field of a stage, or of all: --set=student.optim.steps=4000 --set=all.model.width=32. See docs/training.md.
"""

import math
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.config import ConfigError
from dd_jax.data.synthetic import PRESETS, make
from dd_jax.runtime import command_line, compilation_cache, cpu_flags, hosts
from dd_jax.training import stages
from dd_jax.training.train import TrainingError


def main(arguments: list[str] | None = None) -> None:
    started = time.monotonic()
    parser = command_line.Parser(__doc__)
    parser.add_argument("--recipe", required=True, help="FILE:VARIANT with the stages, such as configs/recipe.py:rendered")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the runs, one per stage")
    parser.add_argument("--data_root", required=True, help="folder of the data set")
    parser.add_argument("--render", choices=tuple(PRESETS), help="render the drives of this preset there, if they are missing")
    parser.add_argument(
        "--minutes", type=command_line.positive, help="stop after this time, rendering and compilation included; default: never"
    )
    parser.add_argument("--out", type=Path, help="folder for what another machine needs to continue, written on every end")
    parser.add_argument("--from", dest="source", type=Path, help="folder that was --out of an earlier call, here or elsewhere")
    parser.add_argument(
        "--set", action="append", default=[], metavar="STAGE.SECTION.FIELD=VALUE", help="change a field; STAGE may be all"
    )
    flags = parser.parse_args(arguments)
    with command_line.job(TrainingError):
        chain = stages.chain(stages.read_recipe(flags.recipe, flags.set), flags.workdir, flags.data_root)
        if flags.render:
            make(flags.data_root, flags.render, workers=os.cpu_count() or 1)
        if not Path(flags.data_root).is_dir():
            raise ConfigError(f"--data_root={flags.data_root} is not a folder: name the data set, or add --render=PRESET")
        deadline = math.inf if flags.minutes is None else started + 60 * flags.minutes
        with hosts.StopSignal(deadline) as stop:
            unfinished = stages.run(chain, stop, flags.out, flags.source)
    if unfinished is None:
        print(f"all stages are finished; report: {chain[-1].folder / 'report.html'}")
    else:
        elsewhere = "" if flags.out is None else f", elsewhere with --from={flags.out}"
        print(f"stopped in stage {unfinished.name}: the same command continues{elsewhere}")


if __name__ == "__main__":
    cpu_flags.restart_with_huge_pages()
    compilation_cache.enable()
    main()
