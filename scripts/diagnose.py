"""Diagnoses a trained model: does the second frame help, and if not, why? The checkpoint contains the config.

    python scripts/diagnose.py --checkpoint=runs/kitti [--split=test] [--data_root=DIR] [--max_frames=N] [--json=FILE]

Prints tables and what they mean, and writes diagnosis.html into the folder of the run, or into --out: abs_rel with other lookup
frames, errors by range of depth with predicted and with true poses, predicted against true motion, and the share of pixels that
train each network.
What needs ground truth or true poses is left out without them. See docs/diagnose.md.
"""

import argparse
import json
from pathlib import Path

from dd_jax.config import protocols
from dd_jax.diagnosis.checkpoint import diagnose_checkpoint
from dd_jax.diagnosis.tables import tables, text
from dd_jax.runtime import command_line, compilation_cache, files

CHANGES = ("data_root", "split_dir", "cache_dir", "protocol", "ground_truth_file", "allow_pickle")
"""Flags that change the config of the checkpoint, as in evaluate.py."""


def main(arguments: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument(
        "--checkpoint", required=True, help="folder of a run or of model.save, hf://owner/name, or bundled: rendered"
    )
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--which", default="best", help="best | latest | a step")
    parser.add_argument("--data_root", default="", help="folder of the data set, if it differs from that of the run")
    parser.add_argument("--split_dir", default="", help="folder with the lists of the split, if it differs from that of the run")
    parser.add_argument("--cache_dir", default="", help="folder of the frame cache; default: that of the run, or in the data set")
    parser.add_argument("--protocol", default="", help=f"{' | '.join(protocols.PROTOCOLS)}; default: that of the config")
    parser.add_argument("--ground_truth_file", default="", help="of a KITTI split, for the protocol's ground_truth=file")
    parser.add_argument("--allow_pickle", action="store_true", help="allow pickled objects in that file, which may run code")
    parser.add_argument(
        "--max_frames", type=command_line.positive, default=0, help="number of samples, evenly spaced; default: all"
    )
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--out", type=Path, help="folder for diagnosis.html; default: that of the run, none for a bundled model")
    flags = parser.parse_args(arguments)
    with command_line.job():
        run(flags)


def run(flags: argparse.Namespace) -> None:
    """The job of the flags."""
    changes = {name: getattr(flags, name) for name in CHANGES}
    with command_line.own_flags():
        diagnosed = diagnose_checkpoint(flags.checkpoint, flags.split, flags.which, flags.out, flags.max_frames, **changes)
    print(*map(text, tables(diagnosed.diagnosis)), sep="\n\n")
    print("\nFindings:", *diagnosed.diagnosis.findings or ["none"], sep="\n  ")
    if flags.json is not None:
        files.replace(flags.json, json.dumps(diagnosed.as_json(), indent=1) + "\n")
    if diagnosed.page is not None:
        print(f"report: {diagnosed.page}")


if __name__ == "__main__":
    compilation_cache.enable()
    main()
