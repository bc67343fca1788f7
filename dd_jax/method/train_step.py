"""The training step: augment, run the networks, synthesise views, sum the losses, differentiate, update. Pure functions."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dd_jax.config import Config
from dd_jax.method import optimizer
from dd_jax.method.augment import augment
from dd_jax.method.cost_volume import update_depth_range
from dd_jax.method.forward import forward
from dd_jax.method.microbatches import mean_over_microbatches
from dd_jax.method.objective import LossInputs, compute_losses, loss_terms
from dd_jax.method.signs import signs
from dd_jax.method.view_synthesis import full_size_depth
from dd_jax.networks import model as networks
from dd_jax.types import Batch, Metrics, TrainState


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


def train_step(state: TrainState, batch: Batch, *, config: Config, axis: str | None, frozen: bool) -> tuple[TrainState, Metrics]:
    """One optimiser step.

    Args:
      state: the same on every device.
      batch: this device's share, as the loader yields it.
      axis: name of the mapped device axis, or None.
      frozen: teacher and pose network are fixed and in evaluation mode (ManyDepth section 4); only the student learns.

    A step whose loss or gradient is not finite changes nothing but the step counter and reports ``skipped`` = 1.
    """
    grads, (metrics, batch_stats, depth_range) = gradients(state, batch, config, axis, frozen)
    with jax.named_scope("optimizer"):
        new = state.replace(batch_stats=batch_stats, depth_range=depth_range)
        state, norms, finite = optimizer.update_if_finite(grads, metrics["total"], state, new, config.optim)
    metrics = metrics | {f"grad_norm/{name}": norm for name, norm in norms.items()}
    bins = {"bins/near": state.depth_range[0], "bins/far": state.depth_range[1]}
    return state, metrics | bins | {"skipped": 1.0 - finite.astype(jnp.float32)}


def gradients(
    state: TrainState, batch: Batch, config: Config, axis: str | None, frozen: bool
) -> tuple[dict[str, Any], tuple[Metrics, Any, Float[Array, "2"]]]:
    """Gradients of every trained network over all devices, and what :func:`loss_fn` returns with the loss."""
    trainable = {name: tree for name, tree in state.params.items() if name == "student" or not frozen}

    def of_part(part: Batch) -> tuple[Any, tuple[Metrics, Any, Float[Array, "2"]]]:
        return jax.grad(loss_fn, has_aux=True)(trainable, state, part, config, axis, frozen)

    grads, (metrics, batch_stats, depth_range) = mean_over_microbatches(of_part, batch, config.train.microbatches)
    if frozen:  # a mean of equal numbers may round
        batch_stats, depth_range = state.batch_stats | {"student": batch_stats["student"]}, state.depth_range
    return grads if axis is None else jax.lax.pmean(grads, axis), (metrics, batch_stats, depth_range)


def loss_fn(
    trainable: dict[str, Any], state: TrainState, batch: Batch, config: Config, axis: str | None, frozen: bool
) -> tuple[Float[Array, ""], tuple[Metrics, Any, Float[Array, "2"]]]:
    """Total loss of one batch, and what the forward pass changed: metrics, batch statistics, depth range."""
    model = networks.merge(state.params | trainable, state.batch_stats, config, axis, train=True, frozen=frozen)
    with jax.named_scope("augment"):
        batch = augment(batch, config.augment, train=True)
    outputs = forward(model, batch, state.depth_range, config, train=True)
    with jax.named_scope("losses"):
        inputs = LossInputs(model, outputs, batch, config, axis)
        losses = compute_losses(inputs, loss_terms(config, frozen))
        metrics = losses | signs(inputs, state.depth_range, frozen)
    depth_range = state.depth_range
    if not frozen:  # without a student too: one may start from this teacher
        depth = full_size_depth(jax.lax.stop_gradient(outputs.teacher_disps[0]), batch.images.shape[2:4], config.model)
        depth_range = update_depth_range(depth_range, depth, config.cost_volume, config.model.min_depth, axis)
    return losses["total"], (metrics, networks.split(model)[1], depth_range)
