"""Trains, or continues training:

    python scripts/train.py --config=configs/dynamic_depth.py:synthetic --workdir=runs/synthetic

On several machines, or with several processes, run the same command in each (docs/scaling.md); under SLURM or on a TPU pod with

    ... --distributed

and elsewhere with another number for each process

    ... --coordinator=HOST:PORT --processes=2 --process=0
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.runtime import command_line, compilation_cache, cpu_flags, hosts
from dd_jax.training.train import TrainingError, train

CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py:VARIANT; any field as --config.a.b=value")
WORKDIR = flags.DEFINE_string("workdir", None, "folder for checkpoints, logs and report; an existing run is resumed")
DISTRIBUTED = flags.DEFINE_boolean("distributed", False, "one of several processes, found by SLURM, Open MPI or TPU metadata")
COORDINATOR = flags.DEFINE_string("coordinator", "", "one of several processes: HOST:PORT of the first")
PROCESSES = flags.DEFINE_integer("processes", 0, "number of processes")
PROCESS = flags.DEFINE_integer("process", -1, "index of this process, from 0")


def main() -> None:
    hosts.connect(COORDINATOR.value, PROCESSES.value, PROCESS.value, DISTRIBUTED.value)
    train(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    cpu_flags.restart_with_huge_pages()
    command_line.require("config", "workdir")
    compilation_cache.enable()
    with hosts.exit_without_barrier():
        command_line.run(main, TrainingError)
