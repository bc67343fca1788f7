"""Writes a trained model as StableHLO (``jax.export``) and ONNX files, and verifies them against the model."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from dd_jax.checkpoints import saved
from dd_jax.checkpoints.run_folder import Restored
from dd_jax.config import ConfigError
from dd_jax.data.random_batch import random_batch
from dd_jax.export.programs import Port, Program, arguments, expected, in_float32, programs
from dd_jax.method import compiled_steps
from dd_jax.runtime import files, parallel
from dd_jax.types import PREVIOUS, Batch, Predictions

FORMATS = ("stablehlo", "onnx")
PLATFORMS = ("cpu", "cuda", "tpu")
SIGNATURE = "signature.json"
FORMAT = 1

TOLERANCES = {"stablehlo": 1e-6, "onnx": 1e-4}
"""Largest relative difference of inverse depth from the model's."""

PACKAGES = {"stablehlo": ("flatbuffers",), "onnx": ("onnx", "onnxruntime")}
"""Packages for writing and reading a format, in addition to those of this library."""

CALLS = 5
"""Timed runs, of which the median is reported."""

Run = Callable[..., dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One file, verified with one sample on the CPU of this machine."""

    path: Path
    sha256: str
    bytes: int
    milliseconds: float  # per frame
    library_milliseconds: float  # of the whole model in this library, for either network
    difference: float  # from the model, see difference()


def export(
    restored: Restored, out: Path, formats: Sequence[str] = FORMATS, network: str = "auto", pixels: str = "float32"
) -> list[Artifact]:
    """Writes ``teacher`` and ``student`` in every format, and ``signature.json``, which describes inputs and outputs.

    Args:
      network, pixels: see :func:`dd_jax.export.programs.programs`.

    A model in bfloat16 computes in bfloat16 in StableHLO, in float32 in ONNX. The signature lists verified files, including
    those of earlier calls for the same model.

    Raises:
      ConfigError: an unknown format or network, a missing package, an operation without ONNX counterpart, a folder that
        cannot be written, or a file whose outputs differ from the model's (it is kept, but not listed).
    """
    cpu = _check(formats)
    models = {kind: in_float32(restored) if kind == "onnx" else restored for kind in formats}
    jobs = [(kind, program) for kind, model in models.items() for program in programs(model, network, pixels)]
    paths = [out / f"{program.network}.{kind}" for kind, program in jobs]
    signature = _signature(restored, out, {path.name for path in paths})
    _write(out / SIGNATURE, json.dumps(signature, indent=2) + "\n")
    batch = sample(restored)

    @functools.cache
    def predicted(precision: str) -> tuple[Predictions, float]:
        model = next(model for model in models.values() if model.config.model.precision == precision)
        return _timed(compiled_steps.compile_predict_step(model.config, [cpu]), parallel.replicate(model.state, [cpu]), batch)

    found = []
    for (kind, program), path in zip(tqdm(jobs, unit="file"), paths):
        data = (as_stablehlo if kind == "stablehlo" else as_onnx)(program)
        _write(path, data)
        with jax.default_device(cpu):
            predictions, library_milliseconds = predicted(models[kind].config.model.precision)
            run = (load if kind == "stablehlo" else load_onnx)(path)
            outputs, milliseconds = _timed(run, **arguments(program, batch))
        largest = difference(outputs, expected(program, predictions, batch))
        if not largest <= TOLERANCES[kind]:
            raise ConfigError(
                f"{path} differs by {largest:.1e} from the model's outputs, more than {TOLERANCES[kind]:g}: do not use it"
            )
        digest = hashlib.sha256(data).hexdigest()
        found.append(Artifact(path, digest, len(data), milliseconds, library_milliseconds, largest))
        signature["artifacts"][path.name] = _about(program, kind, found[-1])
        _write(out / SIGNATURE, json.dumps(signature, indent=2) + "\n")
    return found


def as_stablehlo(program: Program) -> bytes:
    """The program for any batch size on any of :data:`PLATFORMS`; ``jax.export.deserialize`` reads it."""
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(program.run), platforms=PLATFORMS)(**program.abstract(batch))
    return bytes(exported.serialize())


def as_onnx(program: Program) -> bytes:
    """The program for any batch size.

    Raises:
      ConfigError: it uses an operation without ONNX counterpart.
    """
    from dd_jax.export.onnx.convert import convert

    (batch,) = jax.export.symbolic_shape("batch")
    traced = jax.jit(program.run).trace(**program.abstract(batch))
    about = f"dd_jax: {program.outputs['inverse_depth'].meaning}"
    return convert(traced.jaxpr, sorted(program.inputs), sorted(program.outputs), about, batch).SerializeToString()


def load(path: str | Path) -> Run:
    """A StableHLO file as a function of named arrays, for any batch size; compiled once per size.

    Raises:
      ConfigError: no such file, a damaged or other file, or a missing package; in the function: inputs that do not fit.
    """
    _need("stablehlo")
    path = Path(path)
    data = _read(path)
    try:
        exported = jax.export.deserialize(bytearray(data))
        unnamed, names = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        if unnamed or not names:
            raise ValueError("a program of other inputs")
        ports = {name: Port(tuple(aval.shape[1:]), aval.dtype.name, "", "") for name, aval in names.items()}
    except Exception as error:  # a damaged file may raise anything
        raise ConfigError(f"{path} is cut off or not a StableHLO file of scripts/export.py: copy or export it again") from error
    call = jax.jit(exported.call)

    def run(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        check_inputs(inputs, ports)
        return {name: np.asarray(value) for name, value in call(**inputs).items()}

    return run


def load_onnx(path: str | Path) -> Run:
    """An ONNX file as a function of named arrays, run by onnxruntime on the CPU; raises like :func:`load`."""
    _need("onnx")
    import onnxruntime

    path = Path(path)
    data = _read(path)
    kinds = {"tensor(float)": "float32", "tensor(bool)": "bool", "tensor(uint8)": "uint8"}
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        ports = {port.name: Port(tuple(map(int, port.shape[1:])), kinds[port.type], "", "") for port in session.get_inputs()}
        names = [port.name for port in session.get_outputs()]
    except Exception as error:  # onnxruntime has its own exception types
        raise ConfigError(f"{path} is cut off or not an ONNX file of scripts/export.py: copy or export it again") from error

    def run(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        check_inputs(inputs, ports)
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def check_inputs(inputs: dict[str, np.ndarray], ports: dict[str, Port]) -> None:
    """Checks the inputs of a program.

    Raises:
      ConfigError: an array is missing, unknown, or has another shape or type.
    """
    if inputs.keys() != ports.keys():
        raise ConfigError(f"the inputs are {', '.join(sorted(ports))}, but got {', '.join(sorted(inputs)) or 'none'}")
    for name, port in ports.items():
        shape, dtype = np.shape(inputs[name]), np.asarray(inputs[name]).dtype
        if shape[1:] != port.shape or not shape or dtype != port.dtype:
            wanted = ", ".join(("batch", *map(str, port.shape)))
            raise ConfigError(f"{name} must be {port.dtype} of shape ({wanted}): it is {dtype} of shape {shape}")
    sizes = {name: len(value) for name, value in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"all inputs must have the same batch size: they have {sizes}")


def sample(restored: Restored) -> Batch:
    """A random sample with a moving object, without a data set."""
    config = restored.config
    data = dataclasses.replace(config.data, masks="files", priors="none")
    batch = random_batch(data, 1, 3 if config.cost_volume.future_frame else 2)
    masks = np.array(batch.masks)
    masks[:, PREVIOUS] = np.roll(masks[:, PREVIOUS], config.data.width // 16, axis=-1)
    return batch.replace(masks=masks)


def difference(outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest difference, relative for inverse depth, absolute for a pose; infinite if a value is not finite."""
    errors = [np.abs(outputs["inverse_depth"] / expected["inverse_depth"] - 1)]
    if "T_previous_from_target" in expected:
        errors.append(np.abs(outputs["T_previous_from_target"] - expected["T_previous_from_target"]))
    largest = max(float(np.max(values)) for values in errors)
    return largest if all(np.isfinite(values).all() for values in errors) else float("inf")


def table(artifacts: Sequence[Artifact]) -> str:
    """Markdown table with a row per file."""
    lines = [["file", "MB", "ms / frame", "ms / frame, dd_jax", "difference"], ["---", *["---:"] * 4]]
    for one in artifacts:
        times = (f"{milliseconds:,.0f}" for milliseconds in (one.milliseconds, one.library_milliseconds))
        lines.append([one.path.name, f"{one.bytes / 1e6:.1f}", *times, f"{one.difference:.1e}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _check(formats: Sequence[str]) -> jax.Device:
    """The device for verification: a GPU may choose other algorithms for the same program, with other rounding."""
    for kind in formats:
        if kind not in FORMATS:
            raise ConfigError(f"--format={kind} is not one of {', '.join(FORMATS)}")
        _need(kind)
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise ConfigError("files are verified on the CPU, which JAX_PLATFORMS excludes: add ,cpu to it") from error


def _need(kind: str) -> None:
    missing = [name for name in PACKAGES[kind] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format={kind} needs {' and '.join(missing)}: pip install -e '.[export]'")


def _write(path: Path, data: bytes | str) -> None:
    try:
        files.replace(path, data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}): name another folder") from error


def _read(path: Path) -> bytes:
    """Content of a file, checked against the ``signature.json`` in its folder if there is one: not all damage shows otherwise."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a file that scripts/export.py wrote") from error
    known = _listed(path.parent).get(path.name)
    if known is not None and known["sha256"] != hashlib.sha256(data).hexdigest():
        raise ConfigError(f"{path} is not the file described by {SIGNATURE} in its folder: copy both again")
    return data


def _timed(run: Callable[..., Any], *positional: Any, **named: Any) -> tuple[Any, float]:
    """The result of a function, and its milliseconds once compiled."""
    result = jax.block_until_ready(run(*positional, **named))
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        jax.block_until_ready(run(*positional, **named))
        seconds.append(time.perf_counter() - start)
    return result, 1000 * float(np.median(seconds))


def _about(program: Program, kind: str, artifact: Artifact) -> dict[str, Any]:
    def ports(several: dict[str, Port]) -> dict[str, Any]:
        return {
            name: {"shape": ["batch", *port.shape], "dtype": port.dtype, "unit": port.unit, "meaning": port.meaning}
            for name, port in several.items()
        }

    return {
        "network": program.network,
        "batch": "any size",
        "platforms": PLATFORMS if kind == "stablehlo" else "any ONNX runtime",
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        "difference": artifact.difference,
        "inputs": ports(program.inputs),
        "outputs": ports(program.outputs),
    }


def _signature(restored: Restored, out: Path, new: set[str]) -> dict[str, Any]:
    """Signature of the model, with the files of earlier exports that this one does not replace."""
    data, digest = restored.config.data, saved.digest(restored)
    packages = [name for name in ("jax", "jaxlib", *PACKAGES["onnx"]) if importlib.util.find_spec(name) is not None]
    return {
        "format": FORMAT,
        "system": {"name": restored.config.name, "step": restored.step, "digest": digest},
        "frames": {"height": data.height, "width": data.width, "resize": data.resize, "step": data.frame_step},
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "artifacts": {name: about for name, about in _listed(out, digest).items() if name not in new},
    }


def _listed(folder: Path, digest: str | None = None) -> dict[str, Any]:
    """The files that a folder's signature describes; with ``digest``, only if they are of that model."""
    try:
        signature = files.read_json(folder / SIGNATURE)
        known = signature["system"]["digest"], dict(signature["artifacts"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return known[1] if digest in (None, known[0]) else {}
