"""Cost of one full training step beside the teacher's forward and backward pass, measured in alternation in one run.

    python scripts/benchmark.py                                     # DynamicDepth, 192x512, batch 2, ResNet-18, 96 bins
    python scripts/benchmark.py --config=configs/many_depth.py:cityscapes --batch=4
    python scripts/benchmark.py --loader                            # frames/s of the loader, and of a PyTorch DataLoader

The last line is one JSON object.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax import command_line, loader_benchmark
from dd_jax.benchmark import benchmark

CONFIG = config_flags.DEFINE_config_file("config", "configs/dynamic_depth.py:cityscapes", "what to measure")
BATCH = flags.DEFINE_integer("batch", None, "samples per step; default: 2, of the loader 12")
REPEATS = flags.DEFINE_integer("repeats", 5, "measured steps, or rounds of the loader")
LOADER = flags.DEFINE_boolean("loader", False, "measure the loader: 192x640 from cached frames, 2 workers")
ROOT = flags.DEFINE_string("root", "data/benchmark", "of --loader: folder of the drives, rendered on first use")
BATCHES = flags.DEFINE_integer("batches", 20, "of --loader: batches per round")


def main() -> None:
    if LOADER.value:
        config = loader_benchmark.prepare(ROOT.value, BATCH.value or 12)
        loader_benchmark.benchmark(config, BATCHES.value, REPEATS.value)
    else:
        benchmark(CONFIG.value, BATCH.value or 2, REPEATS.value)


if __name__ == "__main__":
    command_line.run(main)
