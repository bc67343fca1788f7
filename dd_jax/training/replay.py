"""A training step, run again in one process on one device: what was not finite, and which sample does it."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dd_jax.checkpoints import run_folder, saved, skipped_steps
from dd_jax.config import Config, ConfigError
from dd_jax.data.loader import TripletSource, open_split, prefetch, sample_names, train_batches
from dd_jax.method import compiled_steps
from dd_jax.method.augment import augment
from dd_jax.method.forward import forward
from dd_jax.method.signs import GROUPS, rotation_degrees
from dd_jax.method.train_step import create_state, gradients
from dd_jax.method.view_synthesis import full_size_depth
from dd_jax.networks import model as networks
from dd_jax.runtime import parallel
from dd_jax.runtime.operations import first_nan
from dd_jax.training.train import before_step, initialise_from
from dd_jax.types import TARGET, Batch, Metrics, TrainState


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step is computed from."""

    number: int
    state: TrainState
    batch: Batch
    names: list[str]  # of the samples; of fewer samples than these if shares of the batch are missing
    config: Config
    origin: list[str]  # where state and batch come from, in words


@dataclasses.dataclass(frozen=True)
class Examined:
    """One run of a step."""

    losses: dict[str, Float[np.ndarray, ""]]  # the terms and "total"
    norms: dict[str, Float[np.ndarray, ""]]  # of the gradient of each network
    finite: dict[str, Bool[np.ndarray, ""]]  # by path of the parameter: its whole gradient is finite

    @property
    def bad(self) -> list[str]:
        """Loss terms, and networks' gradients, that are not finite."""
        terms = [name for name, value in self.losses.items() if not np.isfinite(value)]
        return terms + [f"the gradient of {name}" for name, norm in self.norms.items() if not np.isfinite(norm)]


def load(workdir: Path, number: int, exact: bool = False, data_root: str = "") -> Step:
    """The state and the batch of a training step.

    A skipped step that was saved has its batch and the networks shortly after it: a skipped step changes nothing, but up to
    ``train.AHEAD`` later steps had been started. Any other step, and every one with ``exact``, is reached from the newest
    checkpoint before it, or from the start of the run, by training again on one device.

    Args:
      data_root: folder of the data set, if it differs from that of the run.

    Raises:
      ConfigError: no such step, or data that cannot be read.
    """
    found = skipped_steps.read(workdir, number)
    if found is not None and found.state is not None and not exact:
        origin = [f"batch: saved when the step was skipped{f', shares {found.shares} only' if found.shares else ''}"]
        if found.updates:
            later = f"{found.updates} update{'s' if found.updates > 1 else ''}"
            origin.append(f"networks: saved then, {later} after those of the step; --exact trains up to it again")
        else:
            origin.append("networks: saved then, those of the step")
        return Step(number, found.state, found.batch, found.names, found.config, origin)

    config = run_folder.config_of(workdir) if found is None else found.config
    if not 0 < number <= config.optim.steps:
        raise ConfigError(f"--step={number} is not a step of {workdir}, which has the steps 1 to {config.optim.steps}")
    if data_root:
        config.data.root, config.data.cache_dir = data_root, ""
    source = open_split(config.data, "train")
    state, batch, origin = _train_up_to(workdir, number, config, source)
    if found is not None and not found.shares:
        same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found.batch), jax.tree.leaves(batch), strict=True))
        origin.append(
            f"the batch is {'the one' if same else 'NOT the one, by other data or another seed,'} saved when it was skipped"
        )
    return Step(number, state, batch, sample_names(source, config, number), config, origin)


def _train_up_to(workdir: Path, number: int, config: Config, source: TripletSource) -> tuple[TrainState, Batch, list[str]]:
    """State before a step and its batch, by training from the newest checkpoint before it."""
    device = jax.local_devices()[:1]
    batches = train_batches(source, config)
    state, before = create_state(config), run_folder.newest(workdir, before=number)
    if before is None:
        state, done = initialise_from(config, state), 0
    else:
        restored = run_folder.restore(workdir, state, before=number)
        state, done = restored.state, restored.step
        batches.set_state(restored.data)
    state = parallel.replicate(state, device)
    on_device = prefetch(batches, 2, lambda batch: (batch, parallel.shard_batch(batch, config, device)))
    steps: dict[bool, parallel.Step] = {}
    for step in range(done + 1, number):
        frozen = compiled_steps.frozen_at(config, step)
        if frozen not in steps:
            steps = {frozen: compiled_steps.compile_train_step(config, frozen, device)}
        state = before_step(state, config, step)
        state, _ = steps[frozen](state, next(on_device)[1])
    start = "the start of the run" if before is None else f"checkpoint {before}"
    origin = [f"state: {start} and {number - 1 - done} steps of training on one device", "batch: read from the data set"]
    return parallel.on_host(before_step(state, config, number)), next(on_device)[0], origin


def examiner(step: Step) -> Callable[[Batch], Examined]:
    """Runs the step on a batch of the same size, with the program of the gradients and without the update."""
    frozen = compiled_steps.frozen_at(step.config, step.number)

    @jax.jit
    def run(state: TrainState, batch: Batch) -> tuple[Metrics, Metrics, dict[str, Array]]:
        grads, (metrics, _, _) = gradients(state, batch, step.config, None, frozen)
        norms = {name: jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(tree))) for name, tree in grads.items()}
        leaves, _ = jax.tree_util.tree_flatten_with_path(grads)
        paths = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        losses = {name: value for name, value in metrics.items() if name.partition("/")[0] not in GROUPS}
        return losses, norms, {path: jnp.all(jnp.isfinite(leaf)) for path, leaf in paths.items()}

    state = step.state.replace(opt_state=None)
    return lambda batch: Examined(*jax.device_get(run(state, batch)))


def describe(step: Step) -> list[str]:
    """One line per sample: name, ranges of the images, intrinsics, predicted depth and motion."""
    frozen, config = compiled_steps.frozen_at(step.config, step.number), step.config

    @jax.jit
    def run(state: TrainState, batch: Batch) -> tuple[dict[str, Array], Array, Array]:
        model = networks.merge(state.params, state.batch_stats, config, None, train=True, frozen=frozen)
        outputs = forward(model, augment(batch, config.augment, train=True), state.depth_range, config, train=True)
        disps = {"teacher": outputs.teacher_disps[0]} | ({} if outputs.student is None else {"student": outputs.student.disps[0]})
        size = batch.images.shape[2:4]
        depths = {name: full_size_depth(disp, size, config.model) for name, disp in disps.items()}
        T = outputs.T_source_from_target
        return depths, jnp.linalg.norm(T[..., :3, 3], axis=-1), rotation_degrees(T)

    depths, moved, turned = jax.device_get(run(step.state.replace(opt_state=None), step.batch))
    lines = []
    for i, (images, K, exists) in enumerate(zip(step.batch.images, step.batch.K, step.batch.exists)):
        missing = [name for name, there in zip(("previous", "target", "next"), exists) if not there]
        parts = [
            f"images {images.min()} to {images.max()}, mean {images.mean():.0f}"
            + (f", no {missing[0]} frame" if missing else ""),
            f"fx {K[0, 0]:.4g} fy {K[1, 1]:.4g} cx {K[0, 2]:.4g} cy {K[1, 2]:.4g}",
            f"objects {step.batch.masks[i, TARGET].mean():.0%}",
            *([] if step.batch.prior is None else [f"prior {step.batch.prior[i].min()} to {step.batch.prior[i].max()}"]),
            *(f"depth of the {who} {depth[i].min():.3g} to {depth[i].max():.3g}" for who, depth in depths.items()),
            "motion " + " and ".join(f"{a:.3g} ({b:.2g}°)" for a, b in zip(moved[i], turned[i])),
        ]
        lines.append(f"{_name(step, i)}: " + "; ".join(parts))
    return lines


def offenders(step: Step, run: Callable[[Batch], Examined]) -> list[str]:
    """Which samples make the step not finite, in words: each is run alone, in all places of the batch, then replaced."""
    count = len(step.batch.images)

    def places(indices: list[int]) -> Batch:
        return jax.tree.map(lambda x: x[np.array(indices)], step.batch)

    alone = [run(places([i] * count)).bad for i in range(count)]
    guilty, good = [i for i in range(count) if alone[i]], [i for i in range(count) if not alone[i]]
    lines = [f"{_name(step, i)}: alone it is not finite either ({', '.join(alone[i])})" for i in guilty]
    if guilty and good:
        rest = run(places([good[0] if alone[i] else i for i in range(count)])).bad
        lines.append(f"with {'it' if len(guilty) == 1 else 'them'} replaced by sample {good[0]} the step is {_verdict(rest)}")
    elif guilty:
        lines.append("every sample does it: the networks or a setting are the cause, not the data")
    else:
        for i in range(count):
            rest = run(places([(i + 1) % count if j == i else j for j in range(count)])).bad
            lines += [] if rest else [f"{_name(step, i)}: with the next sample in its place the step is finite"]
        lines = lines or ["no single sample does it: each is finite alone, and the step is not with any of them replaced"]
    return lines


def not_finite(step: Step) -> list[str]:
    """Arrays that the step gets that are not finite already."""
    given = {f"{name} of the batch": value for name, value in vars(step.batch).items() if value is not None}
    given |= {path: np.asarray(value) for path, value in saved.arrays_of(step.state).items()}
    return [name for name, value in given.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]


def first_operation(step: Step) -> str:
    """The operation of the step, run one by one, that first gives a NaN."""
    frozen = compiled_steps.frozen_at(step.config, step.number)
    state = step.state.replace(opt_state=None)
    found = first_nan(lambda state, batch: gradients(state, batch, step.config, None, frozen), state, step.batch)
    return f"first operation with a NaN: {found or 'none'}"


def report(step: Step, operations: bool = False) -> Iterator[str]:
    """All findings, line by line, each as soon as it is known; ``operations``: also :func:`first_operation`."""
    yield from step.origin
    if given := not_finite(step):
        yield f"not finite from the start: {', '.join(given)}"
    run = examiner(step)
    found = run(step.batch)
    yield f"step {step.number}: {_verdict(found.bad)}"
    yield "loss terms: " + ", ".join(f"{name} {value:.6g}" for name, value in found.losses.items())
    yield "gradient norms: " + ", ".join(f"{name} {value:.6g}" for name, value in found.norms.items())
    for network in found.norms:
        own = {path: finite for path, finite in found.finite.items() if path.startswith(f"{network}/")}
        bad = [path for path, finite in own.items() if not finite]
        if bad:
            yield f"first parameter whose gradient is not finite: {bad[0]} ({len(bad)} of the {len(own)} of {network})"
    if operations:
        yield first_operation(step)
    yield "samples:"
    yield from (f"  {line}" for line in describe(step))
    if found.bad:
        yield "which sample does it:"
        yield from (f"  {line}" for line in offenders(step, run))
    else:
        yield (
            "here the step is finite: with --exact its own networks are used, and if they are already, it depends on the "
            "device, the number of devices or the versions"
        )


def _verdict(bad: list[str]) -> str:
    return f"not finite ({', '.join(bad)})" if bad else "finite"


def _name(step: Step, place: int) -> str:
    return f"sample {place}" + (f" ({step.names[place]})" if len(step.names) == len(step.batch.images) else "")
