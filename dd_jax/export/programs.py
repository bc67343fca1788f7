"""A trained model as functions of named arrays with the weights inside, for export."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.checkpoints.run_folder import Restored
from dd_jax.config import Config, ConfigError
from dd_jax.inference.api import NETWORKS
from dd_jax.method.predict_step import predict_augmented
from dd_jax.method.view_synthesis import full_size_depth
from dd_jax.networks import model as networks
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch, Predictions

PIXELS = ("float32", "uint8")


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output array; its first axis is the batch."""

    shape: tuple[int, ...]  # of one sample
    dtype: str
    unit: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Program:
    """One network of a model."""

    network: str  # "teacher" | "student"
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    run: Callable[..., dict[str, jax.Array]]  # the inputs by name

    def abstract(self, batch: Any) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of the inputs for a batch size, which may be symbolic."""
        return {name: jax.ShapeDtypeStruct((batch, *port.shape), port.dtype) for name, port in self.inputs.items()}


def programs(restored: Restored, network: str = "auto", pixels: str = "float32") -> list[Program]:
    """The programs of a trained model.

    Args:
      network: "teacher": one frame | "student": two frames | "auto": all networks of the model.
      pixels: type of the input images: "float32" in [0, 1] | "uint8".

    Raises:
      ConfigError: no such network or pixel type, or "student" for a single-frame model.
    """
    if network not in NETWORKS:
        raise ConfigError(f"--network={network} is not one of {', '.join(NETWORKS)}")
    if pixels not in PIXELS:
        raise ConfigError(f"--pixels={pixels} is not one of {', '.join(PIXELS)}")
    has_student = restored.config.model.student
    if network == "student" and not has_student:
        raise ConfigError("--network=student: this model has no student, only a single-frame network: use --network=auto")
    found = []
    if network != "student":
        found.append(_teacher(restored, pixels))
    if network != "teacher" and has_student:
        found.append(_student(restored, pixels))
    return found


def in_float32(restored: Restored) -> Restored:
    """The same model computing in float32, the type of its parameters."""
    if restored.config.model.precision == "float32":
        return restored
    model = dataclasses.replace(restored.config.model, precision="float32")
    return dataclasses.replace(restored, config=dataclasses.replace(restored.config, model=model))


def arguments(program: Program, batch: Batch) -> dict[str, np.ndarray]:
    """Inputs of a program for a batch of the loader."""
    found = {"K": np.asarray(batch.K)}
    for prefix, place in _frames(batch.images.shape[1]):
        image = np.asarray(batch.images[:, place])
        as_bytes = program.inputs["image"].dtype == "uint8"
        found[f"{prefix}image"] = image if as_bytes else image.astype(np.float32) / np.float32(255)
        found[f"{prefix}mask"] = np.asarray(batch.masks[:, place])
        found[f"has_{prefix}image"] = np.asarray(batch.exists[:, place])
    return {name: found[name] for name in program.inputs}


def expected(program: Program, predictions: Predictions, batch: Batch) -> dict[str, np.ndarray]:
    """Correct outputs of a program, given those of the whole model."""
    teacher, has = np.asarray(predictions.teacher), np.asarray(batch.exists[:, PREVIOUS])
    if program.network == "teacher":
        return {"inverse_depth": teacher}
    return {
        "inverse_depth": np.where(has[:, None, None], np.asarray(predictions.student), teacher),
        "T_previous_from_target": np.where(has[:, None, None], np.asarray(predictions.T_previous_from_target), np.eye(4)),
    }


def _frames(count: int) -> list[tuple[str, int]]:
    """Prefix of a frame's input names, and its position in a batch."""
    return [("", TARGET), ("previous_", PREVIOUS), ("next_", NEXT)][:count]


def _name(prefix: str, step: int) -> str:
    """A frame in descriptions; ``step`` is ``data.frame_step``."""
    if not prefix or step == 1:
        return f"the {prefix.replace('_', ' ')}frame"
    return f"the frame {step} {'before' if prefix == 'previous_' else 'after'}"


def _image(config: Config, pixels: str, which: str) -> Port:
    unit = "RGB in [0, 1]" if pixels == "float32" else "RGB in 0 ... 255"
    return Port((config.data.height, config.data.width, 3), pixels, unit, which)


def _inverse_depth(config: Config, who: str) -> Port:
    return Port((config.data.height, config.data.width), "float32", "1 / unit of depth", f"inverse depth {who}")


def _as_float(image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def _teacher(restored: Restored, pixels: str) -> Program:
    config, state = restored.config, restored.state

    def run(image: jax.Array) -> dict[str, jax.Array]:
        params = state.params | {"teacher": jax.lax.optimization_barrier(state.params["teacher"])}
        model = networks.merge(params, state.batch_stats, config, None, train=False)
        disp = model.teacher(_as_float(image))[0]
        return {"inverse_depth": 1.0 / full_size_depth(disp, image.shape[1:3], config.model)}

    inputs = {"image": _image(config, pixels, "the frame")}
    return Program("teacher", inputs, {"inverse_depth": _inverse_depth(config, "of the frame, from this frame only")}, run)


def _student(restored: Restored, pixels: str) -> Program:
    config = restored.config
    frames, step = _frames(3 if config.cost_volume.future_frame else 2), config.data.frame_step

    def predict_sample(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
        batch = _batch({name: value[None] for name, value in arrays.items()}, len(frames))
        state = restored.state.replace(params=jax.lax.optimization_barrier(restored.state.params))
        found, has = predict_augmented(state, batch, config), batch.exists[0, PREVIOUS]
        return {
            "inverse_depth": jnp.where(has, found.student[0], found.teacher[0]),
            "T_previous_from_target": jnp.where(has, found.T_previous_from_target[0], jnp.eye(4)),
        }

    def run(**arrays: jax.Array) -> dict[str, jax.Array]:
        # The cost volume needs a known batch size. Not vmap: with other operations, bfloat16 would be rounded elsewhere.
        return jax.lax.map(predict_sample, arrays)

    inputs = {}
    for prefix, _ in frames:
        name = _name(prefix, step)
        inputs[f"{prefix}image"] = _image(config, pixels, name)
        if config.domd.enabled:
            size = config.data.height, config.data.width
            inputs[f"{prefix}mask"] = Port(size, "bool", "", f"potentially dynamic objects in {name}; all False: none")
        if prefix:
            inputs[f"has_{prefix}image"] = Port((), "bool", "", f"whether {name} exists; if not, its image and mask are ignored")
    camera = "camera, ((fx, 0, cx), (0, fy, cy), (0, 0, 1)), of the image at this size; integers at pixel centres"
    inputs["K"] = Port((3, 3), "float32", "pixels", camera)
    outputs = {
        "inverse_depth": _inverse_depth(config, "of the frame; from this frame only if there is no previous one"),
        "T_previous_from_target": Port(
            (4, 4),
            "float32",
            "unit of depth",
            f"relative pose from the camera of the frame to that of {_name('previous_', step)}; identity if there is none",
        ),
    }
    return Program("student", inputs, outputs, run)


def _batch(arrays: dict[str, jax.Array], count: int) -> Batch:
    """The student's inputs as a batch after augmentation."""
    b, height, width, _ = arrays["image"].shape
    in_order = [prefix for prefix, _ in sorted(_frames(count), key=lambda frame: frame[1])]
    no_mask, present = jnp.zeros((b, height, width), bool), jnp.ones(b, bool)
    images = jnp.stack([_as_float(arrays[f"{prefix}image"]) for prefix in in_order], axis=1)
    return Batch(
        images=images,
        inputs=images,
        masks=jnp.stack([arrays.get(f"{prefix}mask", no_mask) for prefix in in_order], axis=1),
        K=arrays["K"],
        exists=jnp.stack([arrays.get(f"has_{prefix}image", present) for prefix in in_order], axis=1),
        seed=jnp.zeros(b, jnp.uint32),
    )
