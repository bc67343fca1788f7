"""Train, or continue training: python scripts/train.py --config=configs/dynamic_depth.py:synthetic --workdir=runs/synthetic"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax import command_line
from dd_jax.train import TrainingError, train

CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py:VARIANT; any field as --config.a.b=value")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of checkpoints, logs and report; an existing one is continued")


def main() -> None:
    train(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main, TrainingError)
