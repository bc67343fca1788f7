"""Cost of one full training step beside the teacher's forward and backward pass, measured in alternation in one run.

    python scripts/benchmark.py                                     # DynamicDepth, 192x512, batch 2, ResNet-18, 96 bins
    python scripts/benchmark.py --config=configs/many_depth.py:cityscapes --batch=4

The last line is one JSON object.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax import command_line
from dd_jax.benchmark import benchmark

CONFIG = config_flags.DEFINE_config_file("config", "configs/dynamic_depth.py:cityscapes", "what to measure")
BATCH = flags.DEFINE_integer("batch", 2, "samples per step")
REPEATS = flags.DEFINE_integer("repeats", 5, "measured steps")


def main() -> None:
    benchmark(CONFIG.value, BATCH.value, REPEATS.value)


if __name__ == "__main__":
    command_line.run(main)
