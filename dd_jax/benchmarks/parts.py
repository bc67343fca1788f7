"""The parts of a training step as functions of their own, each compiled alone.

A part's inputs are what the parts before it say about the batch. Samples go without matching augmentation, so that all are
matched. What a part costs alone says where to look; the sum is no step, in which the compiler merges neighbours.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.config import Config
from dd_jax.geometry.camera import scale_intrinsics
from dd_jax.method import cost_volume, domd, dynamic_volume, optimizer
from dd_jax.method.augment import augment
from dd_jax.method.forward import direct_poses, full_size_depth, full_size_flow, predict_poses, residual_flows
from dd_jax.method.train_step import loss_terms
from dd_jax.networks import model as networks
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch, CostVolume, Disentangled, Outputs, StudentOutputs, TrainState, frames_at

Tree = Any
SOURCES = (PREVIOUS, NEXT)


@dataclasses.dataclass(frozen=True)
class Part:
    """A compiled piece of the step; calling either function runs it on the inputs it was made for."""

    name: str
    forward: Callable[[], Any]
    backward: Callable[[], Any] | None  # gradients of the mean output, the forward pass included; None: nothing to teach
    compile_seconds: float  # of both


def compile_part(name: str, function: Callable[..., tuple[Any, Any]], taught: Tree, *inputs: Any) -> Part:
    """Compiles ``function(taught, *inputs) -> (outputs, what else changed)``; ``taught`` None: it has no gradient."""

    def loss(taught: Tree, *inputs: Any) -> tuple[jax.Array, Any]:
        outputs, changed = function(taught, *inputs)
        return sum(jnp.mean(x) for x in jax.tree.leaves(outputs)), changed

    start = time.perf_counter()
    forward = jax.jit(function).lower(taught, *inputs).compile()
    backward = None
    if taught is not None:
        backward = partial(jax.jit(jax.grad(loss, has_aux=True)).lower(taught, *inputs).compile(), taught, *inputs)
    return Part(name, partial(forward, taught, *inputs), backward, time.perf_counter() - start)


def teacher_part(config: Config, state: TrainState, image: jax.Array) -> Part:
    """The teacher on the target frames, batch statistics included: the yardstick of every ratio."""

    def teacher(params: Tree, state: TrainState, image: jax.Array) -> tuple[Any, Any]:
        model = _merge(state, "teacher", params, config)
        return model.teacher(image), networks.split(model)[1]["teacher"]

    return compile_part("teacher", teacher, state.params["teacher"], state, image)


def parts(config: Config, state: TrainState, batch: Batch, teacher: Part) -> Iterator[Part]:
    """Every part of the step besides the teacher, in the order of the step, compiled one after another.

    Args:
      state: on one device.
      batch: as the loader yields it, of one device.
      teacher: made from the same arguments.
    """
    batch = jax.jit(partial(augment, config=config.augment, train=True))(batch)
    pose = _pose_part(config, state, batch)
    yield pose
    T, disps = pose.forward()[0], teacher.forward()[0]
    outputs = Outputs(T_source_from_target=T, teacher_disps=disps, student=None)
    if config.model.student:
        outputs = yield from _student_parts(config, state, batch, outputs)
    yield _losses_part(config, state, batch, outputs)
    yield _optimiser_part(config, state)


def _merge(state: TrainState, name: str, params: Tree, config: Config) -> networks.Model:
    return networks.merge(state.params | {name: params}, state.batch_stats, config, None, train=True)


def _pose_part(config: Config, state: TrainState, batch: Batch) -> Part:
    def pose(params: Tree, state: TrainState, inputs: jax.Array) -> tuple[Any, Any]:
        model = _merge(state, "pose", params, config)
        T = direct_poses(model, inputs, config.model) if config.sc.enabled else predict_poses(model, inputs)
        return T, networks.split(model)[1]["pose"]

    return compile_part("pose", pose, state.params["pose"], state, batch.inputs)


def _student_parts(config: Config, state: TrainState, batch: Batch, outputs: Outputs) -> Iterator[Part]:
    """DOMD, flow, cost volume and student, as far as the system has them; returns ``outputs`` with the student's."""
    T = outputs.T_source_from_target
    depth = full_size_depth(outputs.teacher_disps[0], batch.images.shape[2:4], config.model)
    count = 2 if config.cost_volume.future_frame else 1
    disentangled, holes, lookups = None, None, frames_at(batch.inputs, SOURCES[:count])
    if config.domd.enabled:
        domd_part = _domd_part(config, batch, depth, T, count)
        yield domd_part
        disentangled = domd_part.forward()[0]
        lookups, holes = disentangled.lookups, disentangled.lookup_holes[:, :, ::4, ::4].astype(jnp.float32)
    residuals = None
    if config.ds.enabled:
        flow = _flow_part(config, state, batch, T, depth)
        yield flow
        residuals = flow.forward()[0]
    volume = _volume_part(config, state, batch, lookups, holes, T, residuals)
    yield volume
    student = _student_part(config, state, batch, lookups, volume.forward()[0])
    yield student
    said = StudentOutputs(
        disps=student.forward()[0],
        volume=volume.forward()[0],
        augmented=jnp.zeros(batch.seed.shape, bool),
        disentangled=disentangled,
        residuals=residuals,
    )
    return outputs.replace(student=said)


def _domd_part(config: Config, batch: Batch, depth: jax.Array, T: jax.Array, count: int) -> Part:
    def disentangle(_: None, batch: Batch, depth: jax.Array, T: jax.Array) -> tuple[Disentangled, None]:
        everywhere = jnp.ones(batch.seed.shape, bool)
        return domd.disentangle(batch, SOURCES, count, depth, T, everywhere, config.domd), None

    return compile_part("DOMD", disentangle, None, batch, depth, T)


def _flow_part(config: Config, state: TrainState, batch: Batch, T: jax.Array, depth: jax.Array) -> Part:
    def flow(params: Tree, state: TrainState, batch: Batch, T: jax.Array, depth: jax.Array) -> tuple[Any, Any]:
        return residual_flows(_merge(state, "flow", params, config), batch, T, depth), None

    return compile_part("flow", flow, state.params["flow"], state, batch, T, depth)


def _volume_part(
    config: Config, state: TrainState, batch: Batch, lookups: jax.Array, holes: jax.Array | None, T: jax.Array, residuals: Any
) -> Part:
    def features(state: TrainState, images: jax.Array) -> jax.Array:
        model = networks.merge(state.params, state.batch_stats, config, None, train=True)
        return model.student.encoder.features(images)[1]

    def build(_: None, found: tuple, T: jax.Array, shift: jax.Array | None, K: jax.Array, holes: Any) -> tuple[CostVolume, None]:
        f1, lookup_f1, depth_range, present = found
        bins = cost_volume.depth_bins(depth_range, config.cost_volume)
        if config.ds.enabled:
            return dynamic_volume.build(f1, lookup_f1[:, 0], T[:, 0], present[:, 0], shift, K, bins, config.ds), None
        return cost_volume.build(f1, lookup_f1, T, present, holes, K, bins, config.cost_volume), None

    seen, count = jax.jit(features), lookups.shape[1]
    f1 = seen(state, batch.inputs[:, TARGET])
    lookup_f1 = seen(state, lookups.reshape(-1, *lookups.shape[2:])).reshape(-1, count, *f1.shape[1:])
    found = f1, lookup_f1, state.depth_range, frames_at(batch.exists, SOURCES[:count])
    shift = None if residuals is None else full_size_flow(residuals[0][:, 0], f1.shape[1:3])
    return compile_part("cost volume", build, None, found, T[:, :count], shift, scale_intrinsics(batch.K, 0.25, 0.25), holes)


def _student_part(config: Config, state: TrainState, batch: Batch, lookups: jax.Array, volume: CostVolume) -> Part:
    def student(
        params: Tree, state: TrainState, image: jax.Array, lookups: jax.Array, volume: CostVolume
    ) -> tuple[Any, Any]:
        model = _merge(state, "student", params, config)
        encoder = model.student.encoder
        f0, f1 = encoder.features(image)
        lookup_f1 = jax.lax.stop_gradient(encoder.features(lookups.reshape(-1, *lookups.shape[2:]))[1])
        return model.student.decoder(encoder.fuse(f0, f1, volume)), (lookup_f1, networks.split(model)[1]["student"])

    return compile_part("student", student, state.params["student"], state, batch.inputs[:, TARGET], lookups, volume)


def _losses_part(config: Config, state: TrainState, batch: Batch, outputs: Outputs) -> Part:
    """Views and all terms, with the networks that some of them call again; taught is what the networks said."""
    again = {"flow": config.model.flow, "teacher": config.sc.enabled, "pose": config.sc.enabled or config.loss.pose_cycle > 0}
    disps = None if outputs.student is None else outputs.student.disps

    def losses(taught: tuple, state: TrainState, batch: Batch, outputs: Outputs) -> tuple[Any, Any]:
        params, T, teacher_disps, disps = taught
        model = networks.merge(state.params | params, state.batch_stats, config, None, train=True)
        student = None if disps is None else outputs.student.replace(disps=disps)
        outputs = Outputs(T_source_from_target=T, teacher_disps=teacher_disps, student=student)
        terms = loss_terms(model, outputs, batch, config, None, frozen=False)
        return terms["total"], terms

    called = {name: state.params[name] for name, calls in again.items() if calls}
    taught = called, outputs.T_source_from_target, outputs.teacher_disps, disps
    return compile_part("losses", losses, taught, state, batch, outputs)


def _optimiser_part(config: Config, state: TrainState) -> Part:
    """Changes a copy of the parameters and moments in place, as the step does; fresh memory would cost more than the update."""
    held = [jax.tree.map(jnp.copy, (state.params, state.opt_state))]

    def update(held: tuple[Tree, Tree], grads: Tree) -> tuple[Tree, Tree]:
        return optimizer.update(grads, *held, config.optim)

    start = time.perf_counter()
    compiled = jax.jit(update, donate_argnums=0).lower(held[0], state.params).compile()

    def forward() -> tuple[Tree, Tree]:
        held[0] = compiled(held[0], state.params)
        return held[0]

    return Part("optimiser", forward, None, time.perf_counter() - start)
