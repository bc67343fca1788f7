"""A trained system as a folder of two files, to keep and to give away: ``model.safetensors`` and ``config.json``.

The arrays are those of ``params``, ``batch_stats`` and ``depth_range`` under their paths, ``params/teacher/encoder/...``; the
JSON says which networks they belong to, and where they come from.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dd_jax import checkpoint
from dd_jax import config as configs
from dd_jax.checkpoint import Restored
from dd_jax.config import Config, ConfigError
from dd_jax.data import files
from dd_jax.networks import model as networks
from dd_jax.types import TrainState
from dd_jax.validation import validate

WEIGHTS, ABOUT = "model.safetensors", "config.json"
FORMAT = 1


def is_saved(folder: Path) -> bool:
    """Whether :func:`write` made this folder, or somebody else a folder like it."""
    return (folder / WEIGHTS).is_file() or (folder / ABOUT).is_file()


def write(folder: Path, restored: Restored) -> None:
    """Writes both files, each complete or not at all; paths of the machine that trained are left out.

    Raises:
      ConfigError: the folder cannot be written.
    """
    about = {
        "format": FORMAT,
        "step": restored.step,
        "score": restored.score,
        "versions": restored.versions,
        "config": configs.to_dict(_without_paths(restored.config)),
    }
    arrays = {key: np.ascontiguousarray(value) for key, value in _arrays(restored.state).items()}
    data = save(arrays, metadata={"format": "dd_jax"})
    try:
        files.replace(folder / WEIGHTS, data)
        files.replace(folder / ABOUT, json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror or error}): name another folder") from error


def read(folder: Path) -> Restored:
    """Inverse of :func:`write`; ``state.opt_state`` is None.

    Raises:
      ConfigError: a file is missing, damaged or of another version, or the arrays are not those of the config's networks.
    """
    about = _read_about(folder / ABOUT)
    config = _config_of(about, folder / ABOUT)
    arrays = _read_arrays(folder / WEIGHTS)
    params, batch_stats = jax.eval_shape(lambda: networks.initialise(config, 0))
    wanted = {"params": params, "batch_stats": batch_stats, "depth_range": jax.ShapeDtypeStruct((2,), jnp.float32)}
    different = checkpoint.differences(arrays, _flat(wanted))
    if different:
        raise ConfigError(f"{folder / WEIGHTS} does not hold the networks of the {ABOUT} beside it: {different}")
    leaves = [jnp.asarray(arrays[key]) for key in _flat(wanted)]
    tree = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
    state = TrainState(step=jnp.asarray(about["step"], jnp.int32), opt_state=None, **tree)
    return Restored(state, None, about["step"], about["score"], config, about["versions"])


def digest(restored: Restored) -> str:
    """Of all that decides about a prediction: arrays and config. Equal for a run's checkpoint and what was saved of it."""
    found = hashlib.sha256(json.dumps(configs.to_dict(_without_paths(restored.config)), sort_keys=True).encode())
    for key, value in sorted(_arrays(restored.state).items()):
        found.update(key.encode())
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def _arrays(state: TrainState) -> dict[str, Any]:
    return _flat({"params": state.params, "batch_stats": state.batch_stats, "depth_range": state.depth_range})


def _flat(tree: Any) -> dict[str, Any]:
    """Arrays by their paths, in the tree's own order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _without_paths(config: Config) -> Config:
    config = configs.from_dict(configs.to_dict(config))
    config.data.root = config.data.split_dir = config.data.cache_dir = config.data.ground_truth_file = ""
    config.train.init_from = ""
    return config


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text())
        found = about["format"], int(about["step"]), about["score"], dict(about["versions"]), dict(about["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as what model.save writes ({error!r}): copy the folder again") from error
    if found[0] != FORMAT:
        raise ConfigError(f"{path} has the format {found[0]!r}, this version reads {FORMAT}: update dd_jax")
    return about


def _config_of(about: dict[str, Any], path: Path) -> Config:
    try:
        config = configs.from_dict(about["config"])
        checked = configs.from_dict(about["config"])
        checked.data.root = "unused"
        if checked.eval.ground_truth == "file":
            checked.data.ground_truth_file = "unused"
        if checked.optim.freeze_step == 0:
            checked.train.init_from = "unused"
        validate(checked)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} is missing, cut off or damaged ({error}): copy it again") from error
