"""The process of one measurement: rows and finally a state as lines of JSON on stdout.

python -m dd_jax.benchmarks.accelerator.child MODULE:FUNCTION < TASK
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any, TextIO

from dd_jax.benchmarks.accelerator.task import Task, sentence
from dd_jax.config import ConfigError


def main(function: str, task: Task, out: TextIO) -> None:
    """Runs the measurement; every error becomes its last line."""

    def send(message: Any) -> None:
        out.write(json.dumps(message, default=float) + "\n")
        out.flush()

    try:
        module, _, name = function.partition(":")
        for row in getattr(importlib.import_module(module), name)(task):
            send({"row": row})
        send({"state": "done"})
    except ConfigError as error:
        send({"state": f"not run: {error}"})
    except Exception as error:
        traceback.print_exc()
        send({"state": f"failed: {sentence(error)}"})


if __name__ == "__main__":
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    main(sys.argv[1], Task.from_json(sys.stdin.read()), lines)
