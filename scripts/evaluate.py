"""Evaluates depth and writes metrics.json, metrics.csv, per_image.csv and report.html.

A trained model (the checkpoint contains its config; no config file is needed):

    python scripts/evaluate.py --checkpoint=runs/kitti [--split=test] [--which=best|latest|STEP] [--out=DIR] [--data_root=DIR]

Predictions of any other program, as .npy or 16-bit PNG (value = 256 x depth, or x disparity); the config names the data set:

    python scripts/evaluate.py --predictions=DIR|FILE.npy --predictions_are=depth|disparity \\
        --config=configs/dynamic_depth.py:kitti --config.data.root=KITTI

Files numbered by position need the published list of the split in --split_dir=DIR (see docs/data.md).

Both with another protocol, or with single fields of it changed:

    ... --protocol=eigen_improved    ... --crop=none --min_depth=1 --max_depth=50    ... --scaling=camera_height
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.config import ConfigError, EvalConfig, protocols
from dd_jax.evaluation.evaluate import Results, evaluate_checkpoint, evaluate_predictions
from dd_jax.evaluation.external_predictions import KINDS
from dd_jax.report import format_table
from dd_jax.runtime import command_line, compilation_cache, hosts


def main(arguments: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", help="folder of a run or of model.save, or hf://owner/name")
    what.add_argument("--predictions", help="folder of files named 000000.npy, ... by position in the split, or by frame")
    parser.add_argument("--predictions_are", default="depth", choices=KINDS)
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--which", default="best", help="best | latest | a step")
    parser.add_argument("--out", default=None, help="folder for results; default: that of the run, or next to the predictions")
    parser.add_argument("--data_root", default="", help="folder of the data set, if it differs from that of the run")
    parser.add_argument("--split_dir", default="", help="folder with the lists of the split: the order of unnamed files")
    parser.add_argument("--cache_dir", default="", help="folder of the frame cache; default: that of the run, or in the data set")
    parser.add_argument("--protocol", default="", help=f"{' | '.join(protocols.PROTOCOLS)}; default: that of the config")
    parser.add_argument("--ground_truth_file", default="", help="of a KITTI split, for --ground_truth=file; default: of the run")
    parser.add_argument("--allow_pickle", action="store_true", help="allow pickled objects in that file, which may run code")
    parser.add_argument("--distributed", action="store_true", help="one of several processes; as in train.py")
    parser.add_argument("--coordinator", default="", help="as in train.py: HOST:PORT of the first process")
    parser.add_argument("--processes", type=int, default=0, help="as in train.py: number of processes")
    parser.add_argument("--process", type=int, default=-1, help="as in train.py: index of this process, from 0")
    fields = parser.add_argument_group("fields of the protocol, see EvalConfig in dd_jax/config/schema.py")
    for field in dataclasses.fields(EvalConfig):
        kind = boolean if field.type is bool else field.type
        fields.add_argument(f"--{field.name}", type=kind, default=None, help=f"default of eigen: {field.default}")
    flags, config_flags = parser.parse_known_args(arguments)
    chosen = {field.name: getattr(flags, field.name) for field in dataclasses.fields(EvalConfig)}
    with command_line.job():
        hosts.connect(flags.coordinator, flags.processes, flags.process, flags.distributed)
        results = measure(flags, config_flags, {name: value for name, value in chosen.items() if value is not None})
    if hosts.primary():
        print(format_table(results.metrics, results.scales))
        print(f"images measured: {results.coverage}", f"report: {results.page}", sep="\n")


def measure(flags: argparse.Namespace, config_flags: list[str], changes: dict[str, object]) -> Results:
    """Runs the job of the flags; ``config_flags`` are those that the parser does not know."""
    if flags.checkpoint is not None:
        if config_flags:
            raise ConfigError(f"{config_flags[0]} is not a flag of --checkpoint, which has its own config: see --help")
        where = flags.checkpoint, flags.split, flags.which, flags.out, flags.data_root
        files = flags.ground_truth_file, flags.allow_pickle, flags.split_dir, flags.cache_dir
        with command_line.own_flags():
            return evaluate_checkpoint(*where, flags.protocol, changes, *files)
    if not any(flag.partition("=")[0] == "--config" for flag in config_flags):
        raise ConfigError("--predictions needs the data: set --config=configs/NAME.py:VARIANT")
    config = command_line.config_of(config_flags)
    if flags.data_root:
        config.data.root = flags.data_root
    config.data.split_dir = flags.split_dir or config.data.split_dir
    config.data.cache_dir = flags.cache_dir or config.data.cache_dir
    config.data.ground_truth_file = flags.ground_truth_file or config.data.ground_truth_file
    config.data.allow_pickle = flags.allow_pickle or config.data.allow_pickle
    config.eval = protocols.choose(config.eval, flags.protocol, changes)
    return evaluate_predictions(config, flags.predictions, flags.predictions_are, flags.split, flags.out)


def boolean(word: str) -> bool:
    """``True`` or ``False``, as in the config's flags."""
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{word!r} must be True or False")
    return word.lower() == "true"


if __name__ == "__main__":
    compilation_cache.enable()
    with hosts.exit_without_barrier():
        main()
