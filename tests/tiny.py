"""A model small enough to compile in seconds, and batches for it."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from importlib import import_module

import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.checkpoints import run_folder
from dd_jax.config import Config, from_dict, to_dict
from dd_jax.evaluation import metrics
from dd_jax.inference import api
from dd_jax.method import compiled_steps
from dd_jax.networks import model as networks
from dd_jax.runtime import versions
from dd_jax.types import Batch, TrainState

HEIGHT, WIDTH = 64, 96


def config(**sections: dict) -> Config:
    """Narrow networks, eight bins; ``config(optim={"steps": 3})`` changes fields."""
    result = Config()
    result.data.height, result.data.width, result.data.batch_size, result.data.root = HEIGHT, WIDTH, 4, "unused"
    result.model.width = 8
    result.cost_volume.bins = 8
    result.cost_volume.min_depth, result.cost_volume.max_depth = 0.4, 2.4
    result.optim.learning_rate = 1e-3
    for section, fields in sections.items():
        for name, value in fields.items():
            assert hasattr(getattr(result, section), name)
            setattr(getattr(result, section), name, value)
    return result


SHARP = {"loss": {"automask_noise": 1e-2}, "model": {"initial_forward": 0.1}}
"""Fields for comparisons that must not depend on rounding. Noise far above rounding decides between equal errors of the auto-mask
(one more pixel in a mask of this size is 1e-4 of a loss). The camera moves, so that no pixel is sampled exactly at a pixel
centre, where the slope of bilinear sampling jumps."""


def batch(samples: int = 4, seed: int = 0, frames: int = 3) -> Batch:
    """Textured images that shift from frame to frame, a moving object in every second sample, intrinsics per sample."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (samples, HEIGHT // 8 + 1, WIDTH // 8 + 4, 3))
    picture = coarse.repeat(8, 1).repeat(8, 2)[:, :HEIGHT] + rng.normal(0, 8, (samples, HEIGHT, (WIDTH // 8 + 4) * 8, 3))
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    images = np.stack([picture[:, :, 8 + 3 * f : 8 + 3 * f + WIDTH] for f in range(3)], axis=1)
    masks = np.zeros((samples, 3, HEIGHT, WIDTH), bool)
    for sample in range(0, samples, 2):  # uneven, because devices must not average their own masks
        for frame in range(3):
            column = 20 + 6 * frame + 3 * sample
            masks[sample, frame, 24:48, column : column + 16 + 4 * sample] = True
            images[sample, frame, 24:48, column : column + 16 + 4 * sample] = rng.uniform(0, 255, 3).astype(np.uint8)
    K = np.array([[[60.0 + i, 0, 48.0], [0, 62.0, 31.0 + i], [0, 0, 1]] for i in range(samples)], np.float32)
    return Batch(
        images=images[:, :frames],
        masks=masks[:, :frames],
        K=K,
        exists=np.ones((samples, frames), bool),
        seed=rng.integers(2**32, size=samples, dtype=np.uint32),
    )


def system(name: str) -> Config:
    """The config of a system's demo in ``configs``, at this size."""
    result = import_module(f"configs.{name}").get_config("demo")
    result.data.height, result.data.width, result.data.batch_size = HEIGHT, WIDTH, 2
    result.model.width = result.cost_volume.bins = 8
    result.loss.normal_anchors = 64
    result.optim.learning_rate = 1e-3
    return result


def batch_for(config: Config) -> Batch:
    """:func:`batch` with what the system reads: ``prior`` is a road that recedes."""
    result = batch(config.data.batch_size)
    if config.data.priors == "none":
        return result
    rows = np.arange(1, HEIGHT + 1, dtype=np.uint16)[:, None]
    return result.replace(prior=np.broadcast_to(400 * rows, (config.data.batch_size, HEIGHT, WIDTH)))


def restored(config: Config) -> run_folder.Restored:
    """Untrained networks, as if read from a checkpoint."""
    params, batch_stats = networks.initialise(config, seed=1)
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, None, jnp.array([0.4, 2.4], jnp.float32))
    return run_folder.Restored(state, None, 0, None, config, versions.versions())


@functools.cache
def model() -> api.Model:
    """A model of untrained networks, compiled once for all tests of a process."""
    return api.Model(restored(config()))


def model_of_step(frame_step: int) -> api.Model:
    """The networks of :func:`model`, trained on frames that are ``frame_step`` apart; compiled once as well."""
    first = model()
    settings = from_dict(to_dict(first.config))
    settings.data.frame_step = frame_step
    other = copy.copy(first)
    other._restored = dataclasses.replace(first._restored, config=settings)
    other.__dict__.pop("digest", None)
    return other


def share_compiled_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further models with the config of :func:`model`, as read from disk, use its compiled prediction."""
    compile_predict_step, first = compiled_steps.compile_predict_step, model()

    def shared(config: Config, *devices: list) -> Callable:
        known, wanted = to_dict(first.config), to_dict(config)
        wanted["data"]["root"] = known["data"]["root"]  # not saved
        wanted["data"]["frame_step"] = known["data"]["frame_step"]  # selects frames, compiles to the same
        return first._predict if wanted == known and not devices else compile_predict_step(config, *devices)

    monkeypatch.setattr(compiled_steps, "compile_predict_step", shared)


def frames(count: int = 4, height: int = 90, width: int = 150, seed: int = 0) -> list[np.ndarray]:
    """Images of a size other than the networks' that shift from frame to frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 6), -(-width // 6) + count, 3)).astype(np.uint8)
    wide = coarse.repeat(6, 0).repeat(6, 1)[:height]
    return [np.ascontiguousarray(wide[:, 4 * place : 4 * place + width]) for place in range(count)]


def as_written(scores: dict) -> dict:
    """The part of the evaluation scores that ``metrics.json`` contains."""
    return {
        who: {region: {name: row[name] for name in row if name not in metrics.FURTHER} for region, row in regions.items()}
        for who, regions in scores.items()
    }
