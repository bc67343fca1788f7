"""The whole method on one page: one pure step from (state, batch) to (state, metrics), and prediction."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from dd_jax.config import Config
from dd_jax.geometry.normals import depth_to_normals
from dd_jax.losses.normals import Surfaces
from dd_jax.losses.total import compute_losses, compute_sc_losses
from dd_jax.method import cost_volume, optimizer
from dd_jax.method.augment import augment
from dd_jax.method.forward import (
    compare_frames,
    forward,
    full_size_depth,
    full_size_depths,
    point_offsets,
    pose_round_trips,
    synthesize,
)
from dd_jax.networks import model as networks
from dd_jax.types import NEXT, PREVIOUS, Batch, Metrics, Outputs, Predictions, TrainState, frames_at

sg = jax.lax.stop_gradient

NOISE_STREAM = 2


def create_state(config: Config) -> TrainState:
    """A fresh training state, a function of the config alone."""
    params, batch_stats = networks.initialise(config, config.train.seed)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=jax.jit(lambda p: optimizer.initialise(p, config.optim))(params),
        depth_range=jnp.array([config.cost_volume.min_depth, config.cost_volume.max_depth], jnp.float32),
    )


def loss_fn(
    trainable: dict[str, Any], state: TrainState, batch: Batch, config: Config, axis: str | None, frozen: bool
) -> tuple[Float[Array, ""], tuple[Metrics, Any, Float[Array, "2"]]]:
    """Total loss of one batch, and what the forward pass changed: metrics, batch statistics, depth range."""
    model = networks.merge(state.params | trainable, state.batch_stats, config, axis, train=True, frozen=frozen)
    batch = augment(batch, config.augment, train=True)
    outputs = forward(model, batch, state.depth_range, config, train=True)
    losses = loss_terms(model, outputs, batch, config, axis, frozen)
    depth_range = state.depth_range
    if outputs.student is not None and not frozen:
        depth = full_size_depth(sg(outputs.teacher_disps[0]), batch.images.shape[2:4], config.model)
        depth_range = cost_volume.update_depth_range(depth_range, depth, config.cost_volume, config.model.min_depth, axis)
    return losses["total"], (losses, networks.split(model)[1], depth_range)


def loss_terms(
    model: networks.Model, outputs: Outputs, batch: Batch, config: Config, axis: str | None, frozen: bool
) -> dict[str, Float[Array, ""]]:
    """All terms and their sum, of what the networks say about an augmented batch."""
    if config.sc.enabled:
        return sc_losses(model, outputs, batch, config, axis)
    sources = frames_at(batch.images, (PREVIOUS, NEXT))
    T = outputs.T_source_from_target
    teacher_depths = full_size_depths(outputs.teacher_disps, config.model)
    offsets = point_offsets(model, batch.inputs, config.model)
    teacher_views = student_views = surfaces = round_trips = None
    if not frozen:
        teacher_views = synthesize(teacher_depths, T, sources, None, batch.K, offsets)
        if config.loss.pose_cycle > 0:
            round_trips = pose_round_trips(model, batch.inputs, T, config.model)
    if outputs.student is not None:
        domd = outputs.student.disentangled
        student_depths = full_size_depths(outputs.student.disps, config.model)
        images, holes = (sources, None) if domd is None else (domd.images, domd.holes)
        student_views = synthesize(student_depths, sg(T), images, holes, batch.K, offsets, outputs.student.residuals)
        if config.loss.normal_l1 > 0 or config.loss.normal_rank > 0:
            prior = teacher_depths if config.loss.normal_prior == "teacher" else batch.prior[None]
            surfaces = Surfaces(normals(student_depths, batch.K), sg(normals(prior, batch.K)))

    noise = tie_break_noise(batch, config)
    return compute_losses(
        outputs, teacher_views, student_views, teacher_depths, batch, noise, config, axis, surfaces, round_trips
    )


def sc_losses(
    model: networks.Model, outputs: Outputs, batch: Batch, config: Config, axis: str | None
) -> dict[str, Float[Array, ""]]:
    """All terms of SC-DepthV3 and their sum; the single-frame network is called the teacher here as everywhere."""
    depth = full_size_depths(outputs.teacher_disps[:1], config.model)
    target, sources = compare_frames(model, batch, outputs.T_source_from_target, depth[0], config)
    surfaces = None
    if config.loss.normal_l1 > 0 or config.loss.normal_rank > 0:
        surfaces = Surfaces(normals(depth, batch.K), normals(batch.prior[None], batch.K))
    return compute_sc_losses(target, sources, depth[0], surfaces, batch, config, axis)


def gradients(
    trainable: dict[str, Any], state: TrainState, batch: Batch, config: Config, axis: str | None, frozen: bool
) -> tuple[dict[str, Any], Metrics, Any, Float[Array, "2"]]:
    """Gradients and what :func:`loss_fn` returns besides, of the whole batch or as means over its microbatches.

    A microbatch takes every ``train.microbatches``-th sample of every device, so it is the same set on any number of them.
    Batch statistics, masks' areas and the depth range are those of one microbatch after the other.
    """

    def one(batch_stats: Any, depth_range: Float[Array, "2"], batch: Batch) -> tuple:
        now = state.replace(batch_stats=batch_stats, depth_range=depth_range)
        grads, (metrics, batch_stats, depth_range) = jax.grad(loss_fn, has_aux=True)(trainable, now, batch, config, axis, frozen)
        return (batch_stats, depth_range), (grads, metrics)

    count = config.train.microbatches
    if count == 1:
        (batch_stats, depth_range), (grads, metrics) = one(state.batch_stats, state.depth_range, batch)
        return grads, metrics, batch_stats, depth_range

    def add(carry: tuple, part: Batch) -> tuple:
        remembered, sums = carry
        remembered, found = one(*remembered, part)
        return (remembered, jax.tree.map(lambda total, x: total + x / count, sums, found)), None

    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), batch)
    start = state.batch_stats, state.depth_range
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, *start, jax.tree.map(lambda x: x[0], parts))[1])
    ((batch_stats, depth_range), (grads, metrics)), _ = jax.lax.scan(add, (start, zeros), parts)
    return grads, metrics, batch_stats, depth_range


def train_step(state: TrainState, batch: Batch, *, config: Config, axis: str | None, frozen: bool) -> tuple[TrainState, Metrics]:
    """One optimiser step; pure.

    Args:
      state: the same on every device.
      batch: this device's share, as the loader yields it.
      axis: name of the mapped device axis, or None.
      frozen: teacher and pose are fixed and in evaluation mode (ManyDepth section 4); only the student learns.

    A step whose loss or gradient is not finite changes nothing but the step counter and reports ``skipped`` = 1.
    """
    trainable = {name: tree for name, tree in state.params.items() if name == "student" or not frozen}
    grads, metrics, batch_stats, depth_range = gradients(trainable, state, batch, config, axis, frozen)
    if axis is not None:
        grads = jax.lax.pmean(grads, axis)
    squares = {name: sum(jnp.sum(g * g) for g in jax.tree.leaves(tree)) for name, tree in grads.items()}
    finite = jnp.isfinite(metrics["total"] + sum(squares.values()))

    # A branch and not a select per parameter, into each of which the sum over all gradients would be compiled again.
    params, opt_state, batch_stats, depth_range = jax.lax.cond(
        finite,
        lambda: (*optimizer.update(grads, state.params, state.opt_state, config.optim), batch_stats, depth_range),
        lambda: (state.params, state.opt_state, state.batch_stats, state.depth_range),
    )
    metrics = metrics | {f"grad_norm/{name}": jnp.sqrt(square) for name, square in squares.items()}
    metrics |= {"bins/near": depth_range[0], "bins/far": depth_range[1], "skipped": 1.0 - finite.astype(jnp.float32)}
    state = TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, depth_range=depth_range)
    return state, metrics


def predict(state: TrainState, batch: Batch, config: Config) -> Predictions:
    """Depth of the target frame in evaluation mode; the previous frame may be missing; the next one is only looked at
    where the system matches with it.

    The whole system runs, DOMD included: what is measured is what was trained.
    """
    return predict_augmented(state, augment(batch, config.augment, train=False), config)


def predict_augmented(state: TrainState, batch: Batch, config: Config) -> Predictions:
    """:func:`predict` of a batch of float images, as ``augment`` returns it."""
    model = networks.merge(state.params, state.batch_stats, config, None, train=False)
    outputs = forward(model, batch, state.depth_range, config, train=False)
    student, size = outputs.student, batch.images.shape[2:4]

    def inverse_depth(disp):
        return 1.0 / full_size_depth(disp, size, config.model)

    domd = None if student is None else student.disentangled
    offsets = point_offsets(model, batch.inputs, config.model)
    return Predictions(
        teacher=inverse_depth(outputs.teacher_disps[0]),
        student=None if student is None else inverse_depth(student.disps[0]),
        disentangled=None if domd is None else domd.images[:, 0],
        holes=None if domd is None else domd.holes[:, 0],
        offsets=None if offsets is None else offsets[:, 0],
        T_previous_from_target=outputs.T_source_from_target[:, 0],
    )


def normals(depths: Float[Array, "s b h w"], K: Float[Array, "b 3 3"]) -> Float[Array, "s b h w 3"]:
    """Surface normals of every scale."""
    return depth_to_normals(depths, jnp.broadcast_to(K, (len(depths), *K.shape)))


def tie_break_noise(batch: Batch, config: Config) -> Float[Array, "b h w"]:
    """Normal draws that decide between equal errors of the automask, a function of each sample's seed."""

    def sample(seed: UInt32[Array, ""]) -> Float[Array, "h w"]:
        key = jax.random.fold_in(jax.random.key(seed), NOISE_STREAM)
        return jax.random.normal(key, batch.images.shape[2:4])

    return config.loss.automask_noise * jax.vmap(sample)(batch.seed)
