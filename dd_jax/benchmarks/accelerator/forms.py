"""The forms of an operation against each other, in alternation: alone, and in the whole step."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.benchmarks import programs, step
from dd_jax.benchmarks.accelerator.task import Row, Task, attempts
from dd_jax.config import Config
from dd_jax.data.random_batch import random_batch
from dd_jax.geometry import sampling, splat
from dd_jax.geometry.camera import scale_intrinsics
from dd_jax.losses import ssim
from dd_jax.losses.photometric import photometric_error
from dd_jax.method import augment, cost_volume, optimizer
from dd_jax.method.train_step import create_state
from dd_jax.networks import layers
from dd_jax.runtime import forms
from dd_jax.types import NEXT, PREVIOUS, TARGET

REPEATS = 9
LEAST = 0.05
"""Seconds of a round."""

CHOSEN = "chosen"
"""The form that the backend takes by itself; it is the same program as one of the others."""

FEATURES = 64
"""Channels of matched features and of convolutions at the published width."""

Operation = tuple[Callable[..., Any], tuple[Any, ...]]


def measure(task: Task) -> Iterator[Row]:
    """A row for each operation on arrays of the config's size, then for the step with the forms of every backend."""

    def alone(operation: str, call: Operation) -> Row:
        def compiled(**form: str) -> Callable[[], Any]:
            with forms.use(**form):
                program = jax.jit(call[0]).lower(*call[1]).compile()
            return lambda: program(*call[1])

        return alternated({CHOSEN: compiled()} | {form: compiled(**{operation: form}) for form in forms.OPERATIONS[operation]})

    def whole(backend: str) -> Row:
        device = jax.local_devices()[:1]
        with forms.use(backend):
            other = programs.training_step(task.config, device)
        return alternated({CHOSEN: programs.training_step(task.config, device).run, backend: other.run})

    calls = operations(task.config)
    yield from attempts(task, ((name, lambda name=name: alone(name, calls[name])) for name in forms.OPERATIONS))
    yield from attempts(task, ((f"step, forms of {name}", lambda name=name: whole(name)) for name in forms.BACKENDS))


def alternated(runs: dict[str, Callable[[], Any]]) -> Row:
    """Median seconds of each; short ones run several times in a row, so that launching them does not count."""
    counts = {name: max(1, int(LEAST / programs.seconds_per_run(run, 0.0))) for name, run in runs.items()}

    def repeated(run: Callable[[], Any], count: int) -> Any:
        for _ in range(count):
            result = run()
        return result

    rounds = step.alternate({name: partial(repeated, run, counts[name]) for name, run in runs.items()}, REPEATS)
    return {f"{name}_seconds": float(np.median(times)) / counts[name] for name, times in rounds.items()}


def operations(config: Config) -> dict[str, Operation]:
    """Functions that contain one operation each, with arguments as in a step of ``data.batch_size`` samples."""
    batch = jax.device_put(random_batch(config.data, config.data.batch_size))
    images = batch.images.astype(jnp.float32) / 255
    b = len(images)
    depth = 5.0 + 4.0 * images[:, TARGET, :, :, 0]
    T = jnp.tile(jnp.eye(4).at[:3, 3].set(jnp.array([0.05, 0.0, -0.4])), (b, 1, 1))
    coords, _, _ = splat.splat_coords(depth, T, batch.K, 1)
    features = jnp.tile(images[:, :2, ::4, ::4, :1], FEATURES)
    bins = cost_volume.depth_bins(jnp.array([2.0, 20.0]), config.cost_volume)
    holes = batch.masks[:, :1, ::4, ::4].astype(jnp.float32)
    K = scale_intrinsics(batch.K, 0.25, 0.25)
    draws = jax.random.uniform(jax.random.key(0), (b, 9)).at[:, 0].set(jnp.arange(b) / b)  # a part of the samples is jittered
    kernel = jnp.full((3, 3, FEATURES, FEATURES), 0.01)
    state = create_state(config)

    def gradients(function: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.grad(lambda *arrays: jnp.sum(function(*arrays) ** 2), argnums=(0, 1))

    def volume(holes: jax.Array | None) -> Operation:
        present = jnp.ones((b, 1), bool)
        arrays = features[:, 0], features[:, 1:], T[:, None], present, holes, K, bins
        return lambda *arrays: cost_volume.build(*arrays, config.cost_volume), arrays

    def photometric(views: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.mean(photometric_error(views, ssim.reference(target), config.loss.ssim))

    views = jnp.stack([images[:, PREVIOUS], images[:, NEXT]])
    return {
        "images": (jax.grad(photometric), (views, images[:, TARGET])),
        "sampling": (jax.grad(lambda coords, image: jnp.sum(sampling.sample_border(image, coords) ** 2)), (coords, images[:, 0])),
        "z_buffer": (lambda *arrays: splat.splat_depth(*arrays, config.domd.upscale), (depth, T, batch.K)),
        "pooling": volume(holes),
        "bins": volume(None),
        "jitter": (lambda *arrays: augment.jitter(*arrays, config.augment), (images, draws)),
        "kernel_gradient": (gradients(lambda x, kernel: layers.conv(x, kernel, 1, 1)), (features[:, 0], kernel)),
        "strided_product": (gradients(lambda x, kernel: layers.conv(x, kernel, 2, 0)), (features[:, 0], kernel[:1, :1])),
        "upsampled_conv": (gradients(layers.upsampled_conv), (features[:, 0], kernel)),
        "update": (partial(optimizer.update_if_finite, config=config.optim), (state.params, jnp.float32(1), state, state)),
    }
