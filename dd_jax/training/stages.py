"""Training in stages: each stage is a run that starts from the networks of the previous one.

``WORKDIR/STAGE`` is the run of a stage. A folder handed back holds, under the same names, what another machine needs to continue:
the checkpoints of the unfinished stage and the networks of the finished ones (a saved model, see ``checkpoints.saved``), with
all logs and results.
"""

import contextlib
import dataclasses
import json
import math
import runpy
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from tqdm import tqdm

from dd_jax.checkpoints import comparison, run_folder, saved
from dd_jax.config import Config, ConfigError, to_dict
from dd_jax.config.rules import validate
from dd_jax.diagnosis.checkpoint import diagnose_checkpoint
from dd_jax.diagnosis.tables import tables, text
from dd_jax.evaluation.evaluate import evaluate_checkpoint
from dd_jax.report import format_table
from dd_jax.runtime import command_line, files, hosts, run_lock
from dd_jax.training.train import TrainingError, train

ALL = "all"
"""Instead of the name of a stage: all of them."""

DIAGNOSIS = "diagnosis.json"
"""Written last of all, by the last stage."""

NOTHING = -1.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One run of the sequence."""

    name: str
    config: Config
    folder: Path

    def progress(self, folder: Path) -> float:
        """Steps of this stage of which ``folder`` holds the result; infinite if finished, :data:`NOTHING` if not started."""
        if saved.is_saved(folder):
            return math.inf
        step = run_folder.newest(folder)
        if step is None:
            return NOTHING
        return math.inf if step >= self.config.optim.steps else float(step)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.progress(self.folder) == math.inf


def read_recipe(place: str, changes: Sequence[str] = ()) -> dict[str, Config]:
    """The configs of all stages by name, in order.

    Args:
      place: ``FILE`` or ``FILE:VARIANT``; the file has a function ``get_stages``, see ``configs/recipe.py``.
      changes: ``STAGE.SECTION.FIELD=VALUE`` each; the stage ``all`` means every stage.

    Raises:
      ConfigError: no such file, variant, stage or field, or a value of the wrong type.
    """
    path, _, variant = place.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"--recipe={place}: {path} does not exist")
    get_stages = runpy.run_path(path).get("get_stages")
    if get_stages is None:
        raise ConfigError(f"--recipe={place}: {path} has no function get_stages, see configs/recipe.py")
    stages = dict(get_stages(variant) if variant else get_stages())
    for change in changes:
        path, equals, value = change.partition("=")
        name, _, field = path.partition(".")
        chosen = [stage for stage in stages if name in (stage, ALL)]
        if not equals or not chosen:
            raise ConfigError(f"--set={change} must be STAGE.SECTION.FIELD=VALUE, with a stage of {', '.join([*stages, ALL])}")
        for stage in chosen:
            with flags_of(name):
                stages[stage] = command_line.with_field(stages[stage], field, value)
    return stages


@contextlib.contextmanager
def flags_of(stage: str) -> Iterator[None]:
    """Errors name the stage, and its flags as they are here: ``--set=STAGE.FIELD`` for ``--config.FIELD``."""
    try:
        yield
    except (ConfigError, TrainingError) as error:
        raise type(error)(f"stage {stage}: {str(error).replace('--config.', f'--set={stage}.')}") from error


def chain(configs: dict[str, Config], workdir: Path, data_root: str, devices: list[jax.Device] | None = None) -> list[Stage]:
    """The stages of ``WORKDIR``, each starting from the one before.

    Raises:
      ConfigError: an invalid config.
    """
    stages: list[Stage] = []
    for name, config in configs.items():
        config.data.root = data_root
        if stages:
            config.train.init_from = str(stages[-1].folder)
        with flags_of(name):
            validate(config, len(devices or jax.devices()))
        stages.append(Stage(name, config, workdir / name))
    return stages


def run(
    stages: Sequence[Stage],
    stop: hosts.StopSignal,
    out: Path | None = None,
    source: Path | None = None,
    devices: list[jax.Device] | None = None,
) -> Stage | None:
    """Trains the stages that are not finished, evaluates and diagnoses the last; returns where it stopped, None when all is done.

    A run that was stopped and continued, also elsewhere, is bit-equal to one without interruption.

    Args:
      stop: asked after every step.
      out: gets what another machine needs to continue, after every stage and at the end, also if that is an error.
      source: folder that an earlier call handed back; its stages are taken over where they are ahead of the workdir.
      devices: as in :func:`dd_jax.training.train.train`.

    Raises:
      ConfigError: invalid config, data or checkpoint; or ``out`` or ``source`` is the folder of something else.
      TrainingError: too many non-finite steps in a row.
    """
    if source is not None:
        _take_over(stages, source)
    started = [number for number, stage in enumerate(stages) if stage.progress(stage.folder) > NOTHING]
    current = max(started, default=0)
    for number in started:
        with flags_of(stages[number].name):
            _check(stages[number], superseded=number < current)
    if out is not None:
        _check_out(stages, out)
    last = stages[-1]
    try:
        for stage in stages[current:]:
            if not stage.finished and not stop.requested():
                _announce(stage, stages)
                (stage.folder / DIAGNOSIS).unlink(missing_ok=True)  # of fewer steps
                with flags_of(stage.name):
                    train(stage.config, stage.folder, devices, stop)
                if out is not None and not stop.requested():  # the next stage may be killed
                    _hand_back(stages, out)
            if not stage.finished:
                return stage
        if not (last.folder / DIAGNOSIS).is_file():
            if stop.requested():
                return last
            _measure(last)
    finally:
        if out is not None:
            _hand_back(stages, out)
    return None


def _announce(stage: Stage, stages: Sequence[Stage]) -> None:
    data, steps = stage.config.data, stage.config.optim.steps
    place = f"stage {stages.index(stage) + 1} of {len(stages)}"
    tqdm.write(f"{place}: {stage.name}, {data.height}x{data.width}, {steps:,} steps", file=sys.stderr)


def _measure(stage: Stage) -> None:
    """Evaluation and diagnosis on the test split, into the folder of the stage."""
    root = stage.config.data.root
    results = evaluate_checkpoint(stage.folder, data_root=root)
    print(format_table(results.metrics, results.scales))
    diagnosed = diagnose_checkpoint(stage.folder, data_root=root)
    print(*map(text, tables(diagnosed.diagnosis)), "\n".join(["Findings:", *diagnosed.diagnosis.findings]), sep="\n\n")
    files.replace(stage.folder / DIAGNOSIS, json.dumps(diagnosed.as_json(), indent=1) + "\n")


def _check(stage: Stage, superseded: bool) -> None:
    """Checks that a stage is of this config, and does not need steps that it cannot get any more."""
    stored = saved.config_of(stage.folder)
    comparison.check_config(to_dict(stored), stage.config, stage.folder)
    if stored.optim.steps < stage.config.optim.steps and (superseded or saved.is_saved(stage.folder)):
        raise ConfigError(
            f"{stage.folder} was finished after {stored.optim.steps} steps, and a later stage or only its networks are left: "
            f"set --config.optim.steps={stored.optim.steps}, or train in an empty --workdir"
        )


def _check_out(stages: Sequence[Stage], out: Path) -> None:
    """Checks that handing back loses nothing."""
    if out.resolve() == stages[0].folder.parent.resolve():
        raise ConfigError(f"--out={out} is the --workdir: name another folder")
    for stage in stages:
        if stage.progress(out / stage.name) > stage.progress(stage.folder):
            raise ConfigError(
                f"--out={out} is ahead of the --workdir in stage {stage.name}: continue from it with --from={out}, "
                "or name another folder"
            )


def _take_over(stages: Sequence[Stage], source: Path) -> None:
    """Copies the stages of a folder handed back that are ahead of the workdir."""
    if all(stage.progress(source / stage.name) == NOTHING for stage in stages):
        raise ConfigError(f"--from={source} has no stage of this recipe: name a folder that was --out of an earlier call")
    for stage in stages:
        if stage.progress(source / stage.name) > stage.progress(stage.folder):
            with _replacing(stage.folder) as partial:
                _copy(source / stage.name, partial, checkpoints=True)


def _hand_back(stages: Sequence[Stage], out: Path) -> None:
    """Writes what is needed to continue, and of finished stages their networks.

    They are in half precision, except those from which the next stage or the evaluation has yet to start.
    """
    for stage, following in zip(stages, [*stages[1:], None]):
        if stage.progress(stage.folder) == NOTHING:
            continue
        with _replacing(out / stage.name) as partial:
            _copy(stage.folder, partial, checkpoints=not stage.finished)
            if stage.finished:
                used = following.progress(following.folder) > NOTHING if following else (stage.folder / DIAGNOSIS).is_file()
                saved.write(partial, saved.restore(stage.folder), saved.scores_of(stage.folder), half=used)


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """An empty folder, which takes the place of ``folder`` once it is filled."""
    partial = folder.with_name(f".{folder.name}{files.PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _copy(source: Path, target: Path, checkpoints: bool) -> None:
    """Copies the files of a stage: logs, results and a saved model; not TensorBoard's."""
    for path in files.below(source):
        place = path.relative_to(source)
        log_or_result = len(place.parts) == 1 and path.name != run_lock.LOCK
        if log_or_result or (checkpoints and place.parts[0] == "checkpoints"):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / place)  # without its permissions: the source may be read-only
