"""The results table: every row continues a trained model with several seeds; the same command continues the table.

    python scripts/run_ablations.py --base=runs/many_depth [--seeds=3] [--steps=1000] [--rows=mask_less,pose_cycle]
        [--out=runs/ablations] [--jobs=2] [--config.data.root=DIR, likewise any other field, for all rows]
    python scripts/run_ablations.py --table_only [--out=runs/ablations]

The seed decides the order of the training samples and their augmentation. Finished runs are not repeated; SIGTERM and Ctrl-C stop
the runs at a point from which they can continue. A row that is invalid or fails is reported, and the others go on. Writes
results.md, results.csv, results.json and results.png to the folder, from all finished runs (docs/results.md).
"""

import argparse
import dataclasses
import runpy
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import dd_jax

from dd_jax.ablations import comparison, plan, result, runs, table
from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.runtime import command_line, cpu_flags

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs/ablations.py", help="file with ROWS and get_config")
    parser.add_argument("--base", default="", help="trained model from which all rows start: folder of a run, or its name")
    parser.add_argument("--seeds", type=command_line.positive, default=3, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument("--steps", type=command_line.positive, default=0, help="of every row; default: that of the config file")
    parser.add_argument("--rows", default="", help="rows to run, separated by commas, and their controls; default: all")
    parser.add_argument(
        "--jobs", type=command_line.positive, default=1, help="runs at once; each gets its share of the cores and one GPU"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder of all runs and of the table")
    parser.add_argument("--table_only", action="store_true", help="only make the table of the results in OUT/results")
    arguments, overrides = parser.parse_known_args()
    unknown = [flag for flag in overrides if not flag.startswith("--config.")]
    if unknown:
        parser.error(f"unknown flags: {' '.join(unknown)}")
    with command_line.job():
        run(arguments, overrides)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    if not arguments.config.is_file():
        raise ConfigError(f"--config={arguments.config} does not exist")
    file = runpy.run_path(str(arguments.config))
    if missing := {"ROWS", "get_config"} - set(file):
        raise ConfigError(f"--config={arguments.config} lacks {', '.join(sorted(missing))}: see configs/ablations.py")
    rows, out = file["ROWS"], arguments.out.absolute()
    chosen = plan.choose(rows, arguments.rows.split(",") if arguments.rows else [])
    todo = [] if arguments.table_only else planned(arguments, overrides, rows, chosen, out)
    try:
        if todo:
            runs.execute(todo, arguments.jobs)
    finally:
        finished = [result.read(out / "results" / f"{row}-{seed}.json") for row in chosen for seed in range(arguments.seeds)]
        lines = comparison.tabulate([one for one in finished if one is not None], {row: rows[row] for row in chosen})
        if lines:
            print(table.markdown(lines), flush=True)
            table.write(lines, out)
    if not lines:
        raise ConfigError(f"{out / 'results'} has no result of these rows: leave out --table_only to run them")


def planned(
    arguments: argparse.Namespace, overrides: list[str], rows: dict[str, plan.Row], chosen: list[str], out: Path
) -> list[runs.Run]:
    """All runs, seeds outermost: the table is complete after the first seed. Prints which rows are left out."""
    if not arguments.base:
        raise ConfigError("--base is required: the folder of a trained ManyDepth, or of teacher and pose network")
    if arguments.steps:
        overrides = [f"--config.{field}={value}" for field, value in plan.schedule(arguments.steps).items()] + overrides

    def flags(row: str) -> tuple[str, ...]:
        return f"--config={arguments.config.absolute()}:{row}/{arguments.base}", *overrides

    def valid_config(row: str) -> Config:
        config = command_line.config_of(flags(row))
        validate(config)
        return config

    base = plan.digest_of(arguments.base)
    configs, left_out = plan.leave_out(chosen, rows, valid_config)
    print(*left_out, sep="\n", end="\n" if left_out else "", file=sys.stderr)
    if not configs:
        raise ConfigError("no row can run with this --base and these fields")
    return [
        runs.Run(
            row=row,
            seed=seed,
            config=dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed)),
            base=base,
            flags=(*flags(row), f"--config.train.seed={seed}"),
            folder=out / row / f"seed{seed}",
        )
        for seed in range(arguments.seeds)
        for row, config in configs.items()
    ]


if __name__ == "__main__":
    cpu_flags.restart_with_huge_pages()
    jax.config.update("jax_platforms", "cpu")  # leaves the accelerators to the runs
    main()
