"""Checkpoints of a few small arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.checkpoints import run_folder
from dd_jax.config import Config
from dd_jax.types import TrainState

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.piecewise_constant_schedule(1e-3, {10: 0.1})))


def make_state(step: int, width: int = 4) -> TrainState:
    """Every array is a function of the step, with values that any rounding would change."""
    rng = np.random.default_rng(step)
    params = {
        "teacher": {"convs": {0: {"kernel": rng.normal(size=(3, 3, 2, width))}, 10: {"bias": rng.normal(size=width)}}},
        "pose": {"scale": rng.normal(size=())},
    }
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    opt_state = jax.tree.map(lambda x: x + jnp.asarray(0.1 * step, x.dtype), TX.init(params))
    return TrainState(
        step=jnp.int32(step),
        params=params,
        batch_stats={"teacher": {"mean": jnp.full(width, 1 / 3)}, "pose": {}},
        opt_state=opt_state,
        depth_range=jnp.array([0.1, 10.0 + step]),
    )


def config_with_keep(keep: int) -> Config:
    config = Config()
    config.train.keep = keep
    return config


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save_steps(directory, scores, config):
    with run_folder.Writer(directory, config) as writer:
        for step, score in scores.items():
            assert writer.save(make_state(step), {"next_index": step}, score)
        writer.wait()
        return writer.steps
