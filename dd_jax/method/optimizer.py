"""Optimiser: Adam with a stepped learning rate, one independent state per network so that frozen ones cost nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from dd_jax.config import OptimConfig
from dd_jax.runtime import forms
from dd_jax.types import TrainState

Tree = dict[str, Any]


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Adam (beta 0.9, 0.999, eps 1e-8); the rate is multiplied by ``decay_factor`` every ``decay_steps`` steps."""
    rate = config.learning_rate
    if config.decay_steps > 0:
        rate = optax.exponential_decay(rate, config.decay_steps, config.decay_factor, staircase=True)
    return optax.adam(rate)


def initialise(params: Tree, config: OptimConfig) -> Tree:
    """Optimiser state for every network of ``params``."""
    optimizer = make_optimizer(config)
    return {name: optimizer.init(tree) for name, tree in params.items()}


def update(grads: Tree, params: Tree, opt_state: Tree, config: OptimConfig) -> tuple[Tree, Tree]:
    """New ``(params, opt_state)``; networks without gradients are unchanged."""
    optimizer = make_optimizer(config)
    params, opt_state = dict(params), dict(opt_state)
    for name, grad in grads.items():
        updates, opt_state[name] = optimizer.update(grad, opt_state[name], params[name])
        params[name] = jax.tree.map(lambda p, u: p + u, params[name], updates)
    return params, opt_state


def update_if_finite(
    grads: Tree, loss: Float[Array, ""], state: TrainState, new: TrainState, config: OptimConfig
) -> tuple[TrainState, dict[str, Float[Array, ""]], Bool[Array, ""]]:
    """``new`` with updated parameters if loss and gradient are finite, otherwise ``state``; the step is counted either way.

    Returns also the gradient norm of every network, and whether all was finite.
    """
    squares = {name: sum(jnp.sum(g * g) for g in jax.tree.leaves(tree)) for name, tree in grads.items()}
    finite = jnp.isfinite(loss + sum(squares.values()))

    def updated(grads: Tree, state: TrainState, new: TrainState) -> TrainState:
        params, opt_state = update(grads, state.params, state.opt_state, config)
        return new.replace(params=params, opt_state=opt_state)

    def branch(finite: Bool[Array, ""], *trees: Any) -> TrainState:
        return jax.lax.cond(finite, updated, lambda grads, state, new: state, *trees)

    def select(finite: Bool[Array, ""], *trees: Any) -> TrainState:
        finite = jax.lax.optimization_barrier(finite)  # else XLA sums all squares again in the update of each parameter
        return jax.tree.map(lambda changed, old: jnp.where(finite, changed, old), updated(*trees), trees[1])

    state = forms.choose("update", {"branch": branch, "select": select}, finite, grads, state, new)
    return state.replace(step=state.step + 1), {name: jnp.sqrt(square) for name, square in squares.items()}, finite


def reset_network(opt_state: Tree, network: str) -> Tree:
    """``opt_state`` with one network's part reset to its initial value, schedule included."""
    return opt_state | {network: jax.tree.map(jnp.zeros_like, opt_state[network])}
