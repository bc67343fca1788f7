"""The results table: every row with several seeds, sequentially or in parallel; the same command continues it.

    python scripts/run_ablations.py --config=configs/ablations.py --seeds=3 --out=runs/ablations [--rows=baseline,pose_cycle]
        [--variant=cityscapes] [--jobs=2] [--config.data.root=DIR, likewise any other field, for all rows]

Writes results.md, results.csv, results.json and results.png to the folder, from all runs finished so far. Rows that are invalid
with the variant or the fields, or would repeat the baseline, are left out and listed. SIGTERM and Ctrl-C stop the runs at a point
from which they can continue.
"""

import argparse
import runpy
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.ablations import plan, runs, table
from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.runtime import command_line


def main() -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--config", default="configs/ablations.py", help="file with ROWS, BASELINE and get_config")
    parser.add_argument("--seeds", type=command_line.positive, default=3, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument("--rows", default="", help="rows to run, separated by commas; default: all")
    parser.add_argument("--variant", default="", help="variant of the configs of all rows; default: that of each row")
    parser.add_argument(
        "--jobs", type=command_line.positive, default=1, help="runs at once; each gets its share of the cores and one GPU"
    )
    parser.add_argument("--out", default="runs/ablations", help="folder of all runs and of the table")
    parser.add_argument("--table_only", action="store_true", help="only make the table of the finished runs")
    arguments, overrides = parser.parse_known_args()
    unknown = [flag for flag in overrides if not flag.startswith("--config.")]
    if unknown:
        parser.error(f"unknown flags: {' '.join(unknown)}")
    with command_line.job():
        run(arguments, overrides)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    if not Path(arguments.config).is_file():
        raise ConfigError(f"--config={arguments.config} does not exist")
    file = runpy.run_path(arguments.config)
    if missing := {"ROWS", "BASELINE", "get_config"} - set(file):
        raise ConfigError(f"--config={arguments.config} lacks {', '.join(sorted(missing))}: see configs/ablations.py")
    rows, baseline, out = file["ROWS"], file["BASELINE"], Path(arguments.out).absolute()

    def flags(row: str, seed: int) -> tuple[str, ...]:
        name = f"{row}/{arguments.variant}" if arguments.variant else row
        return f"--config={Path(arguments.config).absolute()}:{name}", *overrides, f"--config.train.seed={seed}"

    def valid_config(row: str, seed: int = 0) -> Config:
        config = command_line.config_of(flags(row, seed))
        validate(config)
        return config

    requested = arguments.rows.split(",") if arguments.rows else []
    chosen, left_out = plan.leave_out(plan.choose(list(rows), requested), baseline, bool(requested), valid_config)
    print(*left_out, sep="\n", end="\n" if left_out else "", file=sys.stderr)
    planned = [
        runs.Run(row, seed, valid_config(row, seed), flags(row, seed), out / row / f"seed{seed}")
        for seed in range(arguments.seeds)  # seeds outermost: a complete table after the first seed
        for row in chosen
    ]
    try:
        if not arguments.table_only:
            runs.execute(planned, arguments.jobs)
    finally:
        lines = table.tabulate(planned, {row: rows[row] for row in chosen}, baseline)
        if lines:
            print(table.markdown(lines, baseline), flush=True)
            table.write(lines, baseline, out)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # leaves the accelerators to the runs
    main()
