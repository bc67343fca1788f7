"""The results table: every row with several seeds, one after another or several at once; run it again to go on.

    python scripts/run_ablations.py --config=configs/ablations.py --seeds=3 --out=runs/ablations [--rows=baseline,pose_cycle]
        [--variant=cityscapes] [--jobs=2] [--config.data.root=DIR, likewise any other field, for all rows]

Writes results.md, results.csv, results.json and results.png into the folder, of whatever runs are finished by then.
"""

import argparse
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax import ablations, command_line
from dd_jax.config import ConfigError
from dd_jax.validation import validate


def main() -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--config", default="configs/ablations.py", help="file with ROWS, BASELINE and get_config")
    parser.add_argument("--seeds", type=command_line.positive, default=3, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument("--rows", default="", help="some rows, separated by commas; default: all")
    parser.add_argument("--variant", default="", help="of the rows' configs; default: theirs")
    parser.add_argument(
        "--jobs", type=command_line.positive, default=1, help="runs at once; each gets its share of the cores, and one GPU"
    )
    parser.add_argument("--out", default="runs/ablations", help="folder of all runs and of the table")
    parser.add_argument("--table_only", action="store_true", help="make the table of what is there")
    arguments, overrides = parser.parse_known_args()
    unknown = [flag for flag in overrides if not flag.startswith("--config.")]
    if unknown:
        parser.error(f"unknown: {' '.join(unknown)}")
    with command_line.one_sentence():
        run(arguments, overrides)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    if not Path(arguments.config).is_file():
        raise ConfigError(f"--config={arguments.config} does not exist")
    file = runpy.run_path(arguments.config)
    if missing := {"ROWS", "BASELINE", "get_config"} - set(file):
        raise ConfigError(f"--config={arguments.config} has no {', '.join(sorted(missing))}: look at configs/ablations.py")
    rows, out = file["ROWS"], Path(arguments.out).absolute()
    chosen = arguments.rows.split(",") if arguments.rows else list(rows)
    if unknown := [row for row in chosen if row not in rows]:
        raise ConfigError(f"--rows: {arguments.config} has no {', '.join(unknown)}, only {', '.join(rows)}")
    runs = []
    for seed in range(arguments.seeds):  # a whole table after the first seed
        for row in chosen:
            name = f"{row}/{arguments.variant}" if arguments.variant else row
            given = (f"--config={Path(arguments.config).absolute()}:{name}", *overrides, f"--config.train.seed={seed}")
            config = command_line.config_of(given)
            validate(config)
            runs.append(ablations.Run(row, seed, config, given, out / row / f"seed{seed}"))
    try:
        if not arguments.table_only:
            ablations.execute(runs, arguments.jobs)
    finally:
        lines = ablations.tabulate(runs, {row: rows[row] for row in chosen}, file["BASELINE"])
        if lines:
            ablations.write(lines, out)
            print(ablations.markdown(lines))


if __name__ == "__main__":
    main()
