"""Checks a data set: python scripts/check_data.py --config=configs/dynamic_depth.py:kitti

Reads everything that training and evaluation with this config would read, and shows one triplet. The exit code is 0 if the data
set is good, 1 if it has problems.
"""

import json
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.prepare.check import SPLITS, check
from dd_jax.prepare.triplet import jpeg
from dd_jax.runtime import command_line, files

CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py:VARIANT; any field as --config.a.b=value")
SPLIT = flags.DEFINE_multi_enum("split", list(SPLITS), SPLITS, "splits to check; may be given several times")
PICTURE = flags.DEFINE_string("picture", "check.jpg", 'image file for one triplet; "" = none')
JSON = flags.DEFINE_string("json", "", "JSON file for the whole report")


def main() -> None:
    report = check(CONFIG.value, SPLIT.value)
    for name, value in report.statistics.items():
        print(f"{name}: {json.dumps(value)}")
    for heading, lines in (("note", report.notes), ("problem", report.problems)):
        for line in lines:
            print(f"{heading}: {line}")
    if PICTURE.value and report.triplet is not None:
        files.replace(Path(PICTURE.value), jpeg(report.triplet))
        print(f"one triplet: {PICTURE.value}")
    if JSON.value:
        content = {"good": report.good, "problems": report.problems, "notes": report.notes, "statistics": report.statistics}
        files.replace(Path(JSON.value), json.dumps(content, indent=1) + "\n")
    print(report.verdict)
    sys.exit(0 if report.good else 1)


if __name__ == "__main__":
    command_line.require("config")
    command_line.run(main)
