"""Memory, operations and communication of a training step on TPUs or GPUs, compiled for them without having any.

    pip install -e '.[tpu-aot]'                                     # for TPUs
    python scripts/compile_for.py --topology=v5e:2x4
    python scripts/compile_for.py --topology=v5e:2x4,v5e:8x8,v5e:16x16 --batch_per_device=12 --config=configs/many_depth.py:kitti
    pip install -e '.[cuda-aot]'                                    # for GPUs
    python scripts/compile_for.py --topology=h100:1,h100:8,a100:8   # one machine; h100:32x8 has 32 of them
    python scripts/compile_for.py --topology=cpu --nocompile        # only the slow operations of the program, with their sources

Takes about twenty minutes of a CPU core per topology of TPUs, and two of GPUs; --topology=cpu, the machine itself, takes one, to
compare options. Prints a Markdown table and the scatters; the last line is JSON. Any config field can be set
(--config.cost_volume.bins=48).
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
TOPOLOGY = flags.DEFINE_list(
    "topology", ["v5e:2x4"], "KIND:SHAPE of the devices, cpu or cpu:DEVICES; several separated by commas"
)
COMPILE = flags.DEFINE_boolean("compile", True, "compile the program; otherwise only its slow operations are counted")
BATCH = flags.DEFINE_integer("batch_per_device", 12, "samples per device and step")
FROZEN = flags.DEFINE_boolean("frozen", False, "the step after optim.freeze_step, in which teacher and pose are fixed")
OUT = flags.DEFINE_string("out", "", "JSON file for the figures")


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # the compilers must not look for their devices
    columns = []
    for topology in TOPOLOGY.value:
        done = compile_for.needs(CONFIG.value, topology, BATCH.value, FROZEN.value, COMPILE.value)
        columns.append(done)
        if COMPILE.value:
            print(f"{topology}: compiled in {done.compile_seconds:.0f} s, {'fits' if done.fits else 'does not fit'}", flush=True)
    print(compile_for.table(columns))
    print(compile_for.scatter_list(columns))
    text = json.dumps([dataclasses.asdict(needs) for needs in columns])
    if OUT.value:
        Path(OUT.value).write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    command_line.run(main)
