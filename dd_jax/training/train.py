"""The training job: data, steps, logs, validation, checkpoints; resumes an existing run."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dd_jax.checkpoints import comparison, imagenet, run_folder, saved, skipped_steps
from dd_jax.config import Config, to_dict
from dd_jax.config.rules import validate
from dd_jax.data.loader import TripletSource, batch_shapes, open_split, prefetch, sample_names, train_batches
from dd_jax.diagnosis.alarms import Alarms
from dd_jax.evaluation.evaluate import evaluate, networks_of
from dd_jax.method import compiled_steps, optimizer, signs
from dd_jax.method.train_step import create_state
from dd_jax.networks import model as networks
from dd_jax.report import Logger, NoLogger, read_history
from dd_jax.runtime import hosts, memory, parallel, run_lock, versions
from dd_jax.types import Batch, Metrics, TrainState

log = logging.getLogger(__name__)

AHEAD = 2
"""Steps that may be in flight: enough to keep the device busy, few enough for their batches to fit into its memory."""


InFlight = deque[tuple[int, Batch, Metrics]]
"""Steps whose result is not known yet, with their batches, the oldest first."""


class TrainingError(RuntimeError):
    """Training cannot continue; the last checkpoint is intact."""


def train(
    config: Config, workdir: str | Path, devices: list[jax.Device] | None = None, stop: hosts.StopSignal | None = None
) -> TrainState:
    """Trains to ``config.optim.steps`` and returns the final state.

    ``workdir`` gets ``checkpoints/`` and ``metrics.jsonl`` (and TensorBoard files). A workdir with checkpoints is resumed from
    the newest one, bit-equal to a run without interruption. SIGTERM saves and returns early; so does ``stop``, a signal that the
    caller has entered, to stop several runs at once.

    ``devices`` defaults to all devices of all processes (see ``hosts``); every process calls this with the same arguments.

    Raises:
      ConfigError: invalid config, data or checkpoint, or another run trains in ``workdir``; raised before the first compilation.
      TrainingError: too many non-finite steps in a row.
    """
    devices = jax.devices() if devices is None else devices
    workdir = Path(workdir)

    # All checks come before the first compilation, which takes minutes.
    validate(config, len(devices), jax.process_count())
    train_source, val_source = open_split(config.data, "train"), open_split(config.data, "val")
    require_same_run(config, train_source, val_source)
    with run_lock.only_run(workdir):
        return _start_or_continue(config, workdir, devices, stop, train_source, val_source)


def _start_or_continue(
    config: Config,
    workdir: Path,
    devices: list[jax.Device],
    stop: hosts.StopSignal | None,
    train_source: TripletSource,
    val_source: TripletSource,
) -> TrainState:
    """The part of :func:`train` that reads and writes ``workdir``."""
    host_batches = train_batches(train_source, config, jax.process_count(), jax.process_index())
    state = create_state(config)
    samples = train_source.fingerprint()
    newest = run_folder.newest(workdir)
    hosts.require_same("the newest checkpoint in --workdir", newest)
    if newest is not None:
        restored = resume(workdir, parallel.replicate(state, devices), config, samples)
        state = restored.state
        host_batches.set_state(restored.data)
    else:
        state = initialise_from(config, state)
        state = parallel.replicate(state, devices)
        if hosts.primary():
            skipped_steps.clear(workdir)
    start = int(state.step)
    host_batches.start_prefetch()  # decodes the first batches during the compilation
    batches = prefetch(host_batches, 2, lambda batch: parallel.shard_batch(batch, config, devices))

    own = parallel.own_devices(devices)
    predict = compiled_steps.compile_predict_step(config, own)
    offsets = compiled_steps.compile_offsets_step(config, own)
    steps: dict[bool, parallel.Step] = {}
    with (
        hosts.StopSignal() if stop is None else contextlib.nullcontext(stop) as stop,
        run_folder.Writer(workdir, config, samples) as writer,
        Logger(workdir, config.optim.steps, start, config.data.batch_size) if hosts.primary() else NoLogger() as logger,
    ):
        if newest is not None:
            there = {"config": to_dict(restored.config), "versions": restored.versions, "data": restored.samples}
            here = {"config": to_dict(config), "versions": versions.versions(), "data": samples}
            logger.message("\n  ".join([f"resuming {workdir} from step {start}", *comparison.changes(there, here)]))
        guard = NonFiniteGuard(workdir, config, train_source, logger.message)
        alarms = Alarms(config, read_history(workdir) if hosts.primary() else ())
        in_flight: InFlight = deque()
        window: list[tuple[int, Metrics]] = []  # steps since the last log record; still on the device
        closed: list[tuple[int, Metrics]] = []  # logged after the next step is dispatched, without waiting for the device
        for step in range(start + 1, config.optim.steps + 1):
            frozen = compiled_steps.frozen_at(config, step)
            state = before_step(state, config, step)
            if frozen not in steps:
                logger.message("compiling the step" + (" with teacher and pose fixed" if frozen else ""))
                shapes = batch_shapes(train_source, config)
                with logger.paused():
                    steps = {frozen: compiled_steps.compile_train_step_now(config, frozen, state, shapes, devices)}
                memory.return_freed()
            batch = next(batches)
            state, metrics = steps[frozen](state, batch)
            in_flight.append((step, batch, metrics))
            if len(in_flight) > AHEAD:
                jax.block_until_ready(in_flight[0][-1])
                guard.check(in_flight, state)
            log_window(closed, alarms, logger)
            closed = []
            window.append((step, metrics))

            stopping = stop.reached(step)  # read once, so that saving and leaving the loop agree
            last = step == config.optim.steps or stopping
            validate_now = step == config.optim.steps or (config.train.eval_every > 0 and step % config.train.eval_every == 0)
            save_now = last or validate_now or step % config.train.checkpoint_every == 0
            if save_now or step % config.train.log_every == 0:
                closed, window = window, []
            if save_now:  # logged first: no window spans a checkpoint, so a resumed run logs the same records
                while in_flight:
                    guard.check(in_flight, state)
                log_window(closed, alarms, logger)
                closed = []
                with logger.paused():
                    score = None
                    if validate_now:
                        score = validation_score(predict, offsets, state, val_source, config, own, step, logger)
                        memory.return_freed()
                writer.save(parallel.on_host(state), batches.get_state(), score)
            if stopping:
                logger.message(f"stopped at step {step} and saved: the same command resumes")
                break
    return state


def before_step(state: TrainState, config: Config, step: int) -> TrainState:
    """The state that a step starts from: with teacher and pose network fixed, the student's optimiser may start again."""
    if step == config.optim.freeze_step + 1 and config.optim.rate_on_freeze == "reset":
        return state.replace(opt_state=optimizer.reset_network(state.opt_state, "student"))
    return state


def resume(workdir: Path, state: TrainState, config: Config, samples: dict[str, Any]) -> run_folder.Restored:
    """The newest checkpoint, or with ``train.skip_damaged`` the newest whole one; damaged ones are then moved away.

    Raises:
      ConfigError: as :func:`run_folder.restore`.
    """
    while True:
        try:
            return run_folder.restore(workdir, state, config, samples)
        except run_folder.DamagedCheckpoint as error:
            if not config.train.skip_damaged or error.whole is None:
                raise
            hosts.require_same("the damaged checkpoint", error.path.name)
            if hosts.primary():
                log.warning("%s: moved to %s", error.found, run_folder.set_aside(error.path))
            hosts.gather(None)  # until it is moved


LOCAL_FIELDS = ("root", "split_dir", "cache_dir", "threads", "ground_truth_file")
"""Fields of ``config.data`` that may differ between processes."""


def require_same_run(config: Config, *sources: TripletSource) -> None:
    """Checks that all processes have the same config, samples and number of devices.

    Raises:
      ConfigError: they differ.
    """
    if jax.process_count() > 1:
        hosts.require_same("the number of their devices", jax.local_device_count())
        shared = to_dict(config)
        shared["data"] = {name: value for name, value in shared["data"].items() if name not in LOCAL_FIELDS}
        hosts.require_same("their config", shared)
        hosts.require_same("their samples", [[source.name(i) for i in range(len(source))] for source in sources])


def log_window(window: list[tuple[int, Metrics]], alarms: Alarms, logger: Logger) -> None:
    """Fetches the metrics of consecutive steps, logs their mean as one record, and the alarms that it raises or clears."""
    if window:
        step, mean = window[-1][0], window_mean([jax.device_get(metrics) for _, metrics in window])
        logger.log(step, mean)
        for event in alarms.update(step, mean):
            logger.alarm(step, event)


def validation_score(
    predict: Callable,
    offsets: Callable | None,
    state: TrainState,
    source: TripletSource,
    config: Config,
    own: list[jax.Device],
    step: int,
    logger: Logger,
) -> float | None:
    """abs_rel of the student, or of the only network, on the validation split, logged; None without ground truth.

    Each process evaluates its share of the images on its ``own`` devices.
    """
    predictors = networks_of(config)
    state, config = parallel.on_own_devices(state, own), parallel.with_even_batches(config, own)
    results = evaluate(
        lambda batch: predict(state, batch),
        source,
        config,
        predictors,
        offsets_fn=None if offsets is None else lambda batch: offsets(state, batch),
        max_frames=config.train.eval_frames,
    )
    logger.log_validation(step, results.metrics, results.panels)
    return results.metrics[predictors[0]]["all"]["abs_rel"]


def initialise_from(config: Config, state: TrainState) -> TrainState:
    """``state`` initialised from a trained model (``train.init_from``) or ImageNet encoders (``train.init_encoders``).

    Raises:
      ConfigError: files are missing or do not fit.
    """
    if config.train.init_encoders:
        params, batch_stats = imagenet.fill_encoders((state.params, state.batch_stats), config)
        return state.replace(params=params, batch_stats=batch_stats)
    if config.train.init_from:
        return initialise_networks(config, state)
    return state


def initialise_networks(config: Config, state: TrainState) -> TrainState:
    """``state`` with the networks of ``train.init_from``; networks that it lacks stay as they are.

    So does the layer that fuses the two cost volumes of DS-Depth, which the student of a ManyDepth lacks. With
    ``train.init_student="teacher"`` the student starts as a copy of the teacher, also where ``train.init_from`` has one.

    Raises:
      ConfigError: it has other networks, or neither teacher nor pose network.
    """
    place = config.train.init_from
    restored = saved.restore_start("--config.train.init_from", place)
    found = restored.state
    trees = {}
    for name in ("params", "batch_stats"):
        wanted, stored = getattr(state, name), getattr(found, name)
        if config.ds.enabled and "student" in stored:
            stored = stored | {"student": _with_fusion(stored["student"], wanted["student"])}
        common = ({"teacher", "pose"} | stored.keys()) & wanted.keys()
        part = [{key: tree[key] for key in common if key in tree} for tree in (stored, wanted)]
        comparison.check_tree(*part, place, to_dict(restored.config))
        trees[name] = wanted | part[0]
    if "student" in state.params and config.train.init_student == "teacher":
        for name, tree in trees.items():
            tree["student"] = networks.student_from_teacher(tree["teacher"], getattr(state, name)["student"])
    return state.replace(**trees, depth_range=found.depth_range)


def _with_fusion(student: networks.Tree, fresh: networks.Tree) -> networks.Tree:
    """A student (parameters or batch statistics) with the layer ``fusion`` of another one if it has none."""
    new = {name: layer for name, layer in fresh["encoder"].items() if name == "fusion"}
    return student | {"encoder": new | student["encoder"]}


def window_mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of every metric over the steps since the last record; skipped steps count only for ``skipped``."""
    good = [row for row in rows if not row["skipped"]] or rows
    mean = {name: float(np.mean([row[name] for row in good])) for name in good[-1]}
    return mean | {"skipped": float(np.mean([row["skipped"] for row in rows]))}


class NonFiniteGuard:
    """Reports and saves skipped steps; raises after too many in a row."""

    def __init__(self, workdir: Path, config: Config, source: TripletSource, report: Callable[[str], None]):
        self.workdir, self.config, self.source, self.report = workdir, config, source, report
        self.in_a_row = 0

    def check(self, in_flight: InFlight, state: TrainState) -> None:
        """Takes the oldest step from those in flight, waits for it, and names what was not finite if it was skipped.

        Args:
          state: after the newest step; a skipped step has changed nothing in it but the counter.

        Raises:
          TrainingError: too many skipped steps in a row.
        """
        step, batch, metrics = in_flight.popleft()
        if not jax.device_get(metrics["skipped"]):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        values = jax.device_get(metrics)
        bad = [name for name in values if not np.isfinite(values[name]) and name.partition("/")[0] not in signs.GROUPS]
        what = ", ".join(sorted(bad, key=lambda name: name.startswith("grad_norm/"))) or "the gradient"
        self.report(f"step {step} skipped: {what} not finite{self.saved(step, batch, in_flight, state)}")
        if self.in_a_row > self.config.optim.max_nonfinite:
            raise TrainingError(
                f"{self.in_a_row} steps in a row up to step {step} were not finite ({what}): "
                "check the camera intrinsics of the data, or lower --config.optim.learning_rate"
            )

    def saved(self, step: int, batch: Batch, later: InFlight, state: TrainState) -> str:
        """Saves a step to run it again, if few are saved yet; says how to."""
        if not skipped_steps.has_room(self.workdir, step):
            return ""
        updates = sum(1 - int(jax.device_get(metrics["skipped"])) for _, _, metrics in later)
        try:
            skipped_steps.write(
                self.workdir,
                step,
                parallel.own_samples(batch, self.config),
                sample_names(self.source, self.config, step),
                parallel.on_host(state.replace(opt_state=None)) if hosts.primary() else None,
                updates,
                self.config,
                (jax.process_index(), jax.process_count()),
            )
        except OSError as error:
            return f"; it could not be saved ({error})"
        return f"; python scripts/replay.py --run={self.workdir} --step={step} runs it again and says why"
