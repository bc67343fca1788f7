"""Optimiser: Adam with a stepped learning rate, one independent state per network so that frozen ones cost nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dd_jax.config import OptimConfig

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
    """New ``(params, opt_state)``; networks without an entry in ``grads`` are returned as they are."""
    optimizer = make_optimizer(config)
    params, opt_state = dict(params), dict(opt_state)
    for name, grad in grads.items():
        updates, opt_state[name] = optimizer.update(grad, opt_state[name], params[name])
        params[name] = jax.tree.map(lambda p, u: p + u, params[name], updates)
    return params, opt_state


def restart(opt_state: Tree, network: str) -> Tree:
    """``opt_state`` with that of one network as it was before its first step, its place in the schedule included."""
    return opt_state | {network: jax.tree.map(jnp.zeros_like, opt_state[network])}
