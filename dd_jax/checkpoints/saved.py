"""A trained model as a folder to keep or publish: ``model.safetensors``, ``config.json`` and a model card, ``README.md``.

The arrays are those of ``params``, ``batch_stats`` and ``depth_range`` under their paths, ``params/teacher/encoder/...``; the
JSON holds the config of the networks and the origin of the weights. An evaluated model also has ``metrics.json``.
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dd_jax import config as configs
from dd_jax.checkpoints import comparison, hub, model_card, run_folder
from dd_jax.checkpoints.run_folder import Restored
from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.networks import model as networks
from dd_jax.runtime import files
from dd_jax.types import TrainState

BUNDLED = Path(__file__).parent / "trained"
"""Folder of the models that come with the library."""

WEIGHTS, ABOUT, CARD, SCORES = "model.safetensors", "config.json", "README.md", "metrics.json"
FORMAT = 1


def is_saved(folder: Path) -> bool:
    """Whether a folder has the files of :func:`write`."""
    return (folder / WEIGHTS).is_file() or (folder / ABOUT).is_file()


def bundled() -> list[str]:
    """Names of the models that come with the library."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{WEIGHTS}"))


def is_name(place: str | Path) -> bool:
    """Whether this is a repository of the hub or the name of a bundled model, not a local folder."""
    return hub.is_address(place) or (str(place) in bundled() and not Path(place).is_dir())


def find(place: str | Path) -> Path:
    """The local folder of a run or of a saved model, given by its path or its name (:func:`is_name`).

    Raises:
      ConfigError: no such folder.
    """
    if hub.is_address(place):
        return hub.fetch(place, (WEIGHTS, ABOUT), (SCORES,))
    folder = BUNDLED / place if is_name(place) else Path(place).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"{place} is not a folder: name the folder of a run, one that model.save wrote, hf://owner/name, "
            f"or a model that comes with the library ({', '.join(bundled())})"
        )
    return folder


def restore(place: str | Path, which: str | int = "best", expected: dict[str, Any] | None = None) -> Restored:
    """A trained model from any place.

    Args:
      place: the folder of a run or its ``checkpoints`` folder, a folder that :func:`write` made, one on the hub,
        ``hf://owner/name`` or ``hf://owner/name@revision``, or the name of a bundled model.
      which: checkpoint of a run: "best" on its validation split | "latest" | a step.
      expected: ``{"params": ..., "batch_stats": ...}`` that the stored networks must match.

    Raises:
      ConfigError: no such place, an empty folder, a damaged file, or other networks than expected.
    """
    folder = find(place)
    if not is_saved(folder):
        return run_folder.restore_params(folder, which, expected)
    restored = read(folder)
    if str(which) not in ("best", "latest", str(restored.step)):
        raise ConfigError(f"{place} is a single model, of step {restored.step}: which={which!r} is for the checkpoints of a run")
    if expected is not None:
        stored = {name: getattr(restored.state, name) for name in expected}
        comparison.check_tree(stored, expected, place, configs.to_dict(restored.config))
    return restored


def restore_start(flag: str, place: str | Path) -> Restored:
    """:func:`restore` for a command whose ``flag`` names the model to start from, but no checkpoint of it.

    Raises:
      ConfigError: as :func:`restore`.
    """
    try:
        return restore(place)
    except run_folder.DamagedCheckpoint as error:
        remedy = "" if error.whole is None else f": delete {error.path} to start from {error.whole}"
        raise ConfigError(f"{flag}: {error.found}{remedy}") from error


def config_of(folder: Path) -> Config:
    """The config of a run or of a saved model in a local folder; the arrays are not read.

    Raises:
      ConfigError: the folder holds neither, or a damaged file.
    """
    if not is_saved(folder):
        return run_folder.config_of(folder)
    return _config_of(_read_about(folder / ABOUT), folder / ABOUT)


def write(folder: Path, restored: Restored, scores: model_card.Scores | None = None, half: bool = False) -> None:
    """Writes the files atomically, without local paths of the training machine.

    An edited card of the same weights (with a licence, above all) is kept; a card of other weights is replaced.

    Args:
      scores: as in ``metrics.json``; None keeps those in the folder if they belong to the same weights.
      half: kernels in float16, which halves the file; :func:`read` converts them to float32.

    Raises:
      ConfigError: the folder cannot be written, is that of a run or has a ``README.md`` that is not a card; or a kernel
        overflows float16.
    """
    if (folder / "checkpoints").is_dir() or folder.name == "checkpoints":
        raise ConfigError(f"{folder} is the folder of a run, whose checkpoints would be hidden: name another folder")
    config = _without_paths(restored.config)
    arrays = {key: np.ascontiguousarray(value) for key, value in arrays_of(restored.state).items()}
    if half:
        arrays = {key: _halved(key, value) for key, value in arrays.items()}
    data = save(arrays, metadata={"format": "dd_jax"})
    sha256 = hashlib.sha256(data).hexdigest()
    about = {
        "format": FORMAT,
        "step": restored.step,
        "score": restored.score,
        "versions": restored.versions,
        "config": configs.to_dict(config),
        "sha256": sha256,  # of the weights
    }
    described = dataclasses.replace(restored, config=config)
    try:
        there = (folder / CARD).read_text(errors="replace") if (folder / CARD).is_file() else ""
        if there and model_card.DIGEST not in there:
            raise ConfigError(f"{folder / CARD} is not a card that model.save wrote: name another folder, or move the file")
        if scores is None and sha256 in there:
            scores = scores_of(folder)
        files.replace(folder / WEIGHTS, data)
        files.replace(folder / ABOUT, json.dumps(about, indent=2) + "\n")
        if scores is not None:
            files.replace(folder / SCORES, json.dumps(scores, indent=2) + "\n")
        elif there:
            (folder / SCORES).unlink(missing_ok=True)  # of the previous weights
        if sha256 not in there or there == model_card.text(described, sha256, None):
            files.replace(folder / CARD, model_card.text(described, sha256, scores))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror or error}): name another folder") from error


def scores_of(folder: Path) -> model_card.Scores | None:
    """Scores that an evaluation wrote into the folder of a run or a saved model; None if there are none.

    Raises:
      ConfigError: the file is damaged.
    """
    path = (folder.parent if folder.name == "checkpoints" else folder) / SCORES
    if not path.is_file():
        return None
    try:
        scores = files.read_json(path)
        model_card.measured(scores)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is not the result of an evaluation ({error!r}): evaluate again, or delete it") from error
    return scores


def read(folder: Path) -> Restored:
    """Inverse of :func:`write`; ``state.opt_state`` is None.

    Raises:
      ConfigError: a file is missing, damaged or of another version, or the arrays do not fit the networks of the config.
    """
    about = _read_about(folder / ABOUT)
    config = _config_of(about, folder / ABOUT)
    arrays, sha256 = _read_arrays(folder / WEIGHTS)
    state = state_from(arrays, config, about["step"], f"{folder / WEIGHTS} does not hold the networks of {ABOUT} in its folder")
    damaged = [key for key in arrays_of(state) if not np.isfinite(arrays[key]).all()]
    if damaged:
        raise ConfigError(f"{folder / WEIGHTS} has values in {damaged[0]} that are not finite: it is damaged")
    near, far = arrays["depth_range"]
    if not 0 < near < far:
        raise ConfigError(f"{folder / WEIGHTS} has the depth range {near:g} to {far:g}: it is damaged")
    known = about.get("sha256") or _digest_on_card(folder / CARD) or sha256
    if sha256 != known:
        raise ConfigError(
            f"{folder / WEIGHTS} is damaged or another file (its SHA-256 begins with {sha256[:8]} and should with {known[:8]}): "
            "copy the folder again"
        )
    return Restored(state, None, about["step"], about["score"], config, about["versions"])


def state_from(arrays: dict[str, np.ndarray], config: Config, step: int, otherwise: str) -> TrainState:
    """Inverse of :func:`arrays_of`, without an optimiser state.

    Raises:
      ConfigError: the arrays are not those of the networks of the config; begins with ``otherwise``.
    """
    params, batch_stats = jax.eval_shape(lambda: networks.initialise(config, 0))
    wanted = {"params": params, "batch_stats": batch_stats, "depth_range": jax.ShapeDtypeStruct((2,), jnp.float32)}
    different = comparison.differences(arrays, _flat(wanted))
    if different:
        raise ConfigError(f"{otherwise}: {different}")
    leaves = [jnp.asarray(arrays[key]) for key in _flat(wanted)]
    tree = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
    return TrainState(step=jnp.asarray(step, jnp.int32), opt_state=None, **tree)


def _halved(key: str, value: np.ndarray) -> np.ndarray:
    if value.ndim < 2:
        return value
    with np.errstate(over="ignore"):
        found = value.astype(np.float16)
    if not np.isfinite(found).all():
        raise ConfigError(f"{key} has values above 65504, the largest float16: save it without half=True")
    return found


def digest(restored: Restored) -> str:
    """SHA-256 of all that a prediction depends on: arrays and config. Equal for a checkpoint of a run and a saved copy of it."""
    found = hashlib.sha256(json.dumps(configs.to_dict(_without_paths(restored.config)), sort_keys=True).encode())
    for key, value in sorted(arrays_of(restored.state).items()):
        found.update(key.encode())
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def arrays_of(state: TrainState) -> dict[str, Any]:
    """Networks and depth range by path, ``params/teacher/encoder/...``."""
    return _flat({"params": state.params, "batch_stats": state.batch_stats, "depth_range": state.depth_range})


def _flat(tree: Any) -> dict[str, Any]:
    """Arrays by path, in the order of the tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _without_paths(config: Config) -> Config:
    config = configs.from_dict(configs.to_dict(config))
    config.data.root = config.data.split_dir = config.data.cache_dir = config.data.ground_truth_file = ""
    config.train.init_from = _without_folder(config.train.init_from)
    config.train.init_encoders = ",".join(_without_folder(entry) for entry in config.train.init_encoders.split(","))
    return config


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = files.read_json(path)
        kinds = {"format": int, "step": int, "score": (float, int, type(None)), "versions": dict, "config": dict}
        wrong = [name for name, kind in kinds.items() if isinstance(about[name], bool) or not isinstance(about[name], kind)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a file that model.save wrote ({error!r}): copy the folder again") from error
    if about["format"] != FORMAT:
        raise ConfigError(f"{path} has the format {about['format']!r}, this version reads {FORMAT}: update dd_jax")
    if not wrong and not 0 <= about["step"] < 2**31:
        wrong.append("step")
    if wrong:
        raise ConfigError(f"{path} has {wrong[0]}={about[wrong[0]]!r}, which model.save does not write: copy the folder again")
    return about


def _without_folder(entry: str) -> str:
    return entry if hub.is_address(entry) else entry.rstrip("/").rpartition("/")[2]


def check(config: Config) -> None:
    """Validates the config of a model that is used but not trained: the place of its data does not matter.

    Raises:
      ConfigError: one sentence.
    """
    checked = configs.from_dict(configs.to_dict(config))
    checked.data.root = "unused"
    if checked.eval.ground_truth == "file":
        checked.data.ground_truth_file = "unused"
    if checked.optim.freeze_step == 0:
        checked.train.init_from = "unused"
    validate(checked)


def _config_of(about: dict[str, Any], path: Path) -> Config:
    try:
        config = configs.from_dict(about["config"])
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


def _digest_on_card(path: Path) -> str | None:
    """SHA-256 of the weights on a model card, for models of versions that wrote it nowhere else; None if there is none."""
    text = path.read_text(errors="replace") if path.is_file() else ""
    found = re.search(rf"{re.escape(model_card.DIGEST)}[^0-9a-f]*([0-9a-f]{{64}})", text)
    return found and found[1]


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a file, and its SHA-256."""
    try:
        data = path.read_bytes()
        arrays = load(data)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} is missing, cut off or damaged ({error}): copy it again") from error
    found = {key: value.astype(np.float32) if value.dtype == np.float16 else value for key, value in arrays.items()}
    return found, hashlib.sha256(data).hexdigest()
