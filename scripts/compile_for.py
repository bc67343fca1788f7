"""Memory and communication of a training step on a TPU, compiled for it without having one.

    pip install -e '.[tpu-aot]'
    python scripts/compile_for.py --topology=v5e:2x4
    python scripts/compile_for.py --topology=v5e:2x4,v5e:8x8,v5e:16x16 --batch_per_device=12 --config=configs/many_depth.py:kitti

Takes about twenty minutes of a CPU core per topology; --topology=cpu, the machine itself, takes one, to compare options. Prints a
Markdown table; the last line is JSON. Any config field can be set (--config.cost_volume.bins=48).
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.benchmarks import compile_for
from dd_jax.runtime import command_line

CONFIG = config_flags.DEFINE_config_file("config", "configs/dynamic_depth.py:kitti", "what to train")
TOPOLOGY = flags.DEFINE_list("topology", ["v5e:2x4"], "KIND:SHAPE of the devices, or cpu; several separated by commas")
BATCH = flags.DEFINE_integer("batch_per_device", 12, "samples per device and step")
FROZEN = flags.DEFINE_boolean("frozen", False, "the step after optim.freeze_step, in which teacher and pose are fixed")
OUT = flags.DEFINE_string("out", "", "JSON file for the figures")


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # libtpu only compiles and must not look for a TPU
    columns = []
    for topology in TOPOLOGY.value:
        columns.append(compile_for.needs(CONFIG.value, topology, BATCH.value, FROZEN.value))
        done = columns[-1]
        print(f"{topology}: compiled in {done.compile_seconds:.0f} s, {'fits' if done.fits else 'does not fit'}", flush=True)
    print(compile_for.table(columns))
    text = json.dumps([dataclasses.asdict(needs) for needs in columns])
    if OUT.value:
        Path(OUT.value).write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    command_line.run(main)
