"""The first minutes on a machine with a GPU or TPU: one command measures what there is to know, in order of value.

    python scripts/measure_accelerator.py                                   # ten minutes, DynamicDepth at 192x640
    python scripts/measure_accelerator.py --minutes=30 --config=configs/many_depth.py:kitti
    python scripts/measure_accelerator.py --only=step_float32,memory --batches=8,32,128
    python scripts/measure_accelerator.py --tiny                            # tries the command itself, also on a CPU

Devices, tests, steps and predictions until memory ends, parts of the step, loader, forms of operations, a killed and continued
run, memory by option, PyTorch, several devices. Writes --out (JSON) after every row, and beside it a Markdown table and a log.
SIGTERM and Ctrl-C keep what there is. No network is needed. docs/accelerators.md explains the table.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.benchmarks.accelerator import plan, report, run
from dd_jax.config import ConfigError
from dd_jax.runtime import command_line

CONFIG = config_flags.DEFINE_config_file("config", "configs/dynamic_depth.py:kitti", "what to measure")
MINUTES = flags.DEFINE_float("minutes", 10.0, "time for everything; what does not fit is listed", lower_bound=0.0)
ONLY = flags.DEFINE_list("only", [], "names of measurements, separated by commas; empty: all")
BATCHES = flags.DEFINE_list("batches", [], "batch sizes to measure, ascending; empty: doubled until memory ends")
TINY = flags.DEFINE_boolean("tiny", False, "64x96, narrow networks, two batch sizes, tests of the losses only")
OUT = flags.DEFINE_string("out", "accelerator.json", "JSON file for the figures; must not exist")


def main() -> None:
    config, measurements, sizes = CONFIG.value, plan.chosen(ONLY.value), {}
    if TINY.value:
        config, measurements, sizes = plan.tiny(config, measurements)
    if BATCHES.value:
        sizes["batch_sizes"] = batch_sizes()
    command = " ".join(["python", *sys.argv])
    found = run.run(config, measurements, MINUTES.value, Path(OUT.value), command, **sizes)
    print(f"\n{report.markdown(found)}\n{OUT.value} has all figures")
    if any(result["state"].endswith(run.INTERRUPTED) for result in found["measurements"].values()):
        sys.exit("error: interrupted; the files have what was measured until then")


def batch_sizes() -> tuple[int, ...]:
    """The value of ``--batches``.

    Raises:
      ConfigError: not positive integers in ascending order.
    """
    words = BATCHES.value
    sizes = tuple(int(word) for word in words if word.isdecimal())
    if len(sizes) < len(words) or list(sizes) != sorted(set(sizes) - {0}):
        raise ConfigError(f"--batches={','.join(words)} must be positive integers in ascending order")
    return sizes


if __name__ == "__main__":
    command_line.run(main)
