"""Time of a training step, its parts and the prediction of a frame, measured in alternation in one run.

    python scripts/benchmark.py                                     # DynamicDepth, 192x512, batch 2, ResNet-18, 96 bins
    python scripts/benchmark.py --config=configs/many_depth.py:cityscapes --batch=4 --noparts
    python scripts/benchmark.py --against=loss.pyramid=True         # the step with other fields; can be repeated
    python scripts/benchmark.py --peer                              # compare with ManyDepth in PyTorch: pip install -e '.[peer]'
    python scripts/benchmark.py --loader                            # frames/s of the loader, and of a PyTorch DataLoader

Times are relative to the teacher's forward and backward pass. The last line is one JSON object. On a machine with other load,
compare with PyTorch on one core (taskset -c 0): its threads wait for one another and suffer more than ours.
"""

import json
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.benchmarks import loader, options
from dd_jax.benchmarks.step import benchmark
from dd_jax.runtime import command_line, cpu_flags

CONFIG = config_flags.DEFINE_config_file("config", "configs/dynamic_depth.py:cityscapes", "what to measure")
BATCH = flags.DEFINE_integer("batch", None, "samples per step; default: 2, with --loader 12", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 5, "measured steps, or rounds of the loader", lower_bound=1)
DEVICES = flags.DEFINE_integer("devices", 1, "devices to divide the batch over; 0 = all of this process", lower_bound=0)
PARTS = flags.DEFINE_boolean("parts", True, "profile the parts of the step: augmentation, poses, teacher, ... optimizer")
INFERENCE = flags.DEFINE_boolean("inference", True, "measure the prediction of one frame")
AGAINST = flags.DEFINE_multi_string(
    "against", [], "measure the step also with SECTION.FIELD=VALUE (several: separated by commas), and nothing else"
)
PEER = flags.DEFINE_boolean("peer", False, "measure the networks of the PyPI package manydepth too")
OUT = flags.DEFINE_string("out", "", "JSON file for the figures")
LOADER = flags.DEFINE_boolean("loader", False, "measure the loader: 192x640 from cached frames, 2 workers")
ROOT = flags.DEFINE_string("root", "data/benchmark", "for --loader: folder of the drives, rendered on first use")
BATCHES = flags.DEFINE_integer("batches", 20, "for --loader: batches per round", lower_bound=1)


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times without the cache
    if LOADER.value:
        config = loader.prepare(ROOT.value, BATCH.value or 12)
        result = loader.benchmark(config, BATCHES.value, REPEATS.value)
    elif AGAINST.value:
        result = options.benchmark(CONFIG.value, AGAINST.value, BATCH.value or 2, REPEATS.value)
    else:
        result = benchmark(
            CONFIG.value,
            BATCH.value or 2,
            REPEATS.value,
            devices=DEVICES.value,
            parts=PARTS.value,
            inference=INFERENCE.value,
            peer=PEER.value,
        )
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    cpu_flags.restart_with_huge_pages()
    command_line.run(main)
