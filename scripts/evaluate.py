"""Measures a trained system and writes metrics.json, metrics.csv, per_image.csv and report.html.

    python scripts/evaluate.py --checkpoint=runs/demo [--split=test] [--which=best|latest|STEP] [--out=DIR] [--data_root=DIR]

The checkpoint knows its config; no config file is needed.
"""

import argparse
import sys

from dd_jax.config import ConfigError
from dd_jax.evaluate import evaluate_checkpoint, format_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder of the run, or the checkpoints folder in it")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--which", default="best", help="best | latest | a step")
    parser.add_argument("--out", default=None, help="folder for the results; default: that of the run")
    parser.add_argument("--data_root", default="", help="where the data set is, if not where the run found it")
    flags = parser.parse_args()
    try:
        results = evaluate_checkpoint(flags.checkpoint, flags.split, flags.which, flags.out, flags.data_root)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    print(format_table(results))


if __name__ == "__main__":
    main()
