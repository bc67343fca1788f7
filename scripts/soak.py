"""Trains for hours at the size of the demo and watches memory, file handles, threads and speed (Linux; docs/reliability.md).

    python scripts/soak.py --workdir=runs/soak --data_root=data/demo --minutes=120 --out=runs/soak/soak.json

It renders the demo's drives there if they are missing, and saves and validates on the way. The first --warm rows of ten minutes,
in which the program is compiled and caches are filled, are shown and not judged.
"""

import dataclasses
import json
import sys
from pathlib import Path

from dd_jax.benchmarks import soak
from dd_jax.config import ConfigError
from dd_jax.runtime import command_line, versions

ROOT = Path(__file__).parents[1]
RECIPE = f"{ROOT}/configs/recipe.py:demo/dynamic_depth"
STEPS, EVERY = 10**7, 500  # more steps than fit into any time; steps between validations


def main(arguments: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run, new")
    parser.add_argument("--data_root", required=True, help="folder of the drives")
    parser.add_argument("--minutes", type=command_line.positive, default=120, help="length of the training; default: 120")
    parser.add_argument("--warm", type=command_line.positive, default=1, help="rows that are not judged; default: 1")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    flags = parser.parse_args(arguments)
    with command_line.job():
        if flags.workdir.exists():
            raise ConfigError(f"--workdir={flags.workdir} exists: name a new folder")
        flags.workdir.mkdir(parents=True)
        code = versions.versions()
        log, metrics = flags.workdir / "log.txt", flags.workdir / "student" / "metrics.jsonl"
        settings = [f"--set=student.optim.steps={STEPS}", f"--set=student.train.eval_every={EVERY}"]
        command = [sys.executable, str(ROOT / "scripts" / "train_stages.py"), f"--recipe={RECIPE}", f"--workdir={flags.workdir}"]
        command += [f"--data_root={flags.data_root}", "--render=demo", f"--minutes={flags.minutes}", *settings]
        status, samples = soak.watch(command, log, every=10.0, report=show)
        if status != 0:
            raise ConfigError(f"the training ended with status {status}: {log} says why")
        rows, rates = soak.windows(samples), soak.speeds(metrics)
        try:
            judged = soak.summary(rows, rates, flags.warm)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    result = {
        "command": "scripts/soak.py --minutes=" + str(flags.minutes),
        "minutes": round(samples[-1].seconds / 60, 1),
        "steps": json.loads(metrics.read_text().splitlines()[-1])["step"],
        **judged,
        "rows": rows,
        "versions": code,
    }
    if flags.out:
        flags.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(judged, indent=2))


def show(sample: soak.Sample) -> None:
    fields = dataclasses.asdict(sample) | {name: f"{getattr(sample, name) / soak.MIB:.0f} MiB" for name in ("resident", "peak")}
    print("  ".join(f"{name} {value:.0f}" if isinstance(value, float) else f"{name} {value}" for name, value in fields.items()))


if __name__ == "__main__":
    main()
