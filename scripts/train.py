"""Train, or continue training: python scripts/train.py --config=configs/dynamic_depth.py:synthetic --workdir=runs/synthetic"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.config import ConfigError
from dd_jax.train import TrainingError, train

CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py:VARIANT; any field as --config.a.b=value")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of checkpoints, logs and report; an existing one is continued")


def main(_):
    logging.set_verbosity(logging.WARNING)
    try:
        train(CONFIG.value, WORKDIR.value)
    except (ConfigError, TrainingError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
