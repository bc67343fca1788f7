"""Saving and restoring runs; the only module that uses Orbax (its v1 API).

One checkpoint is one folder, committed by one rename: the train state, the position of the data iterator, the config, package
versions and the score on the validation split. Only complete folders are read, so a run killed while saving loses nothing else.
"""

import dataclasses
import functools
import importlib.metadata
import json
import math
import pathlib
import platform
import subprocess
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

import dd_jax
from dd_jax import config as configs
from dd_jax.config import Config, ConfigError
from dd_jax.types import TrainState

SCORE = "abs_rel"
"""Metric that defines "best": the lowest one on the validation split."""

MAY_DIFFER = {
    "optim.steps", "optim.max_nonfinite",
    "train.backend", "train.remat", "train.log_every", "train.eval_every", "train.eval_frames", "train.checkpoint_every",
    "train.keep", "train.init_from", "train.init_encoders", "eval.batch_size",
    "data.root", "data.split_dir", "data.cache_dir", "data.threads", "data.max_unreadable",
    "data.ground_truth_file", "data.allow_pickle",
}  # fmt: skip
"""Config fields that do not change the numbers of a resumed run."""


@dataclasses.dataclass
class Restored:
    """One checkpoint, read back."""

    state: TrainState
    data: Any  # ``get_state()`` of the data iterator
    step: int
    score: float | None  # abs_rel on the validation split, if evaluated
    config: Config
    versions: dict[str, str]


class Writer:
    """Keeps the newest ``config.train.keep`` checkpoints of a run and the best one; saves in the background."""

    def __init__(self, workdir: str | pathlib.Path, config: Config):
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[SCORE], reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        self._config = configs.to_dict(config)
        self._checkpointer = ocp.training.Checkpointer(
            _absolute(workdir) / "checkpoints",
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(config.train.keep), best]),
            cleanup_tmp_directories=True,
        )

    def save(self, state: TrainState | dict[str, Any], data: Any, score: float | None = None) -> bool:
        """Starts saving; returns once the arrays are copied, False if this step is already on disk (validate before saving).

        Args:
          state: unstacked (one copy of every array), on devices or in NumPy; its step names the checkpoint.
          data: ``get_state()`` of the data iterator, taken when the batch of this step was drawn, since a prefetching
            iterator runs ahead of the training. Any JSON value.
          score: abs_rel on the validation split, lower is better; None or not finite: never the best.
        """
        tree = _as_dict(state)
        step = int(tree["step"])
        if step in self.steps:
            return False
        score = float(score) if score is not None and math.isfinite(score) else None
        about = {"config": self._config, "versions": versions(), "data": data, "score": score}
        about["integer_keys"] = any(isinstance(key, int) for key in _dict_keys(tree))
        self._checkpointer.save_checkpointables_async(
            step,
            {"state": tree},
            metrics=None if score is None else {SCORE: score},
            custom_metadata=json.loads(json.dumps(about)),
            force=True,
        )
        return True

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints that are kept, oldest first."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def wait(self) -> None:
        """Returns when everything is on disk; raises errors of the background thread."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Finishes saving and closes the folder."""
        self._checkpointer.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def newest(directory: str | pathlib.Path) -> int | None:
    """Step of the newest complete checkpoint in the folder (of a run, or its ``checkpoints``); None if there is none."""
    return max(_steps(_folder(directory)), default=None)


def restore(directory: str | pathlib.Path, abstract_state: TrainState | dict[str, Any], config: Config | None = None) -> Restored:
    """The newest checkpoint, bit for bit, to resume training.

    Args:
      directory: the workdir of a run, or its ``checkpoints`` folder.
      abstract_state: a fresh state, or a dict of its fields, with arrays or shapes as leaves; leaves with a sharding keep
        it, the others go to the first device. The number of devices that wrote the checkpoint does not matter.
      config: of the resuming run; every field that changes a number must be the same (:data:`MAY_DIFFER` lists the rest).

    Raises:
      ConfigError: no checkpoint, another config, or other networks than those of ``abstract_state``.
    """
    with _reader(directory) as reader:
        metadata, about = _read_about(reader, "latest")
        if config is not None:
            check_config(about["config"], config, metadata.path)
        wanted = _as_dict(abstract_state)
        check_tree(metadata.metadata["state"], wanted, metadata.path, about["config"])
        state = reader.load_checkpointables(metadata.step, {"state": jax.tree.map(_where_wanted, wanted)})["state"]
    return _restored(state, metadata, about)


def restore_params(directory: str | pathlib.Path, which: str | int = "best", expected: dict[str, Any] | None = None) -> Restored:
    """Networks without the optimiser state (``state.opt_state`` is None), to evaluate, predict or start from.

    Args:
      directory: the workdir of a run, or its ``checkpoints`` folder.
      which: "best" (the latest if no checkpoint has a score) | "latest" | a step.
      expected: ``{"params": ..., "batch_stats": ...}`` that the stored networks must match.

    Raises:
      ConfigError: no such checkpoint, or other networks than expected.
    """
    with _reader(directory) as reader:
        metadata, about = _read_about(reader, which)
        stored = metadata.metadata["state"]
        for name, tree in (expected or {}).items():
            check_tree({name: stored[name]}, {name: tree}, metadata.path, about["config"])
        abstract = jax.tree.map(_on_one_device, stored, is_leaf=_is_array)
        abstract["opt_state"] = jax.tree.map(lambda _: ocp.PLACEHOLDER, stored["opt_state"], is_leaf=_is_array)
        state = reader.load_checkpointables(metadata.step, {"state": abstract})["state"]
    if about["integer_keys"]:
        state = _restore_integer_keys(state)
    return _restored(state | {"opt_state": None}, metadata, about)


def config_of(directory: str | pathlib.Path) -> Config:
    """The config of the newest checkpoint; the arrays are not read.

    Raises:
      ConfigError: no checkpoint.
    """
    with _reader(directory) as reader:
        return configs.from_dict(_read_about(reader, "latest")[1]["config"])


@functools.cache
def versions() -> dict[str, str]:
    """Versions of all packages that numbers depend on, and the git commit if the package is a checkout."""
    found = {"python": platform.python_version(), "dd_jax": dd_jax.__version__}
    for package in ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy"):
        found[package] = importlib.metadata.version(package)
    checkout = pathlib.Path(__file__).resolve().parents[2]
    if (checkout / ".git").exists():
        git = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        if git.returncode == 0:
            found["git"] = git.stdout.strip()
    return found


def _absolute(directory: str | pathlib.Path) -> pathlib.Path:
    return pathlib.Path(directory).expanduser().resolve()


def _folder(directory: str | pathlib.Path) -> pathlib.Path:
    path = _absolute(directory)
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path


def _steps(folder: pathlib.Path) -> list[int]:
    """Steps of complete checkpoints: a folder has another name until it is committed."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def _reader(directory: str | pathlib.Path) -> ocp.training.Checkpointer:
    folder = _folder(directory)
    if not _steps(folder):
        raise ConfigError(f"no checkpoint in {folder}: name the folder of a run that saved at least one")
    return ocp.training.Checkpointer(folder)


def _read_about(reader: ocp.training.Checkpointer, which: str | int) -> tuple[Any, dict[str, Any]]:
    """Orbax's metadata of the chosen checkpoint, and ours."""
    found = {checkpoint.step: (checkpoint.metrics or {}).get(SCORE) for checkpoint in reader.checkpoints}
    scored = [step for step, score in found.items() if score is not None]
    if which == "best" and scored:
        step = min(scored, key=lambda s: (found[s], -s))
    elif which in ("best", "latest"):
        step = max(found)
    elif str(which).isdigit() and int(which) in found:
        step = int(which)
    else:
        raise ConfigError(f"no checkpoint {which!r} in {reader.directory}: it has the steps {sorted(found)}, 'best' and 'latest'")
    metadata = reader.checkpointables_metadata(step)
    about = metadata.custom_metadata
    if not about or "config" not in about or "state" not in metadata.metadata:
        raise ConfigError(f"{reader.directory / str(step)} is a checkpoint that dd_jax did not write")
    return metadata, about


def _restored(state: dict[str, Any], metadata: Any, about: dict[str, Any]) -> Restored:
    config = configs.from_dict(about["config"])
    return Restored(TrainState(**state), about["data"], metadata.step, about["score"], config, about["versions"])


def _as_dict(state: TrainState | dict[str, Any]) -> dict[str, Any]:
    """The plain tree that is stored: the format does not depend on our classes."""
    return state if isinstance(state, dict) else {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _on_one_device(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))


def _where_wanted(x: Any) -> jax.ShapeDtypeStruct:
    """Placement by the caller, not by the checkpoint: its devices may not exist here."""
    sharding = getattr(x, "sharding", None)
    return _on_one_device(x) if sharding is None else jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _by_path(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_array)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(x.shape), str(x.dtype)) for path, x in leaves}


def differences(stored: Any, wanted: Any) -> str:
    """The first few key paths that only one tree has, or whose arrays differ in shape or type; empty if all agree."""
    there, here = _by_path(stored), _by_path(wanted)
    different = [key for key in sorted(there | here) if there.get(key) != here.get(key)]
    named = [f"{key} is {_shape(there.get(key))} there and {_shape(here.get(key))} here" for key in different[:3]]
    return "; ".join(named) + (f"; and {len(different) - 3} more" if len(different) > 3 else "")


def check_tree(stored: Any, wanted: Any, path: Any, config: dict[str, Any]) -> None:
    """Compares the key paths, shapes and types of the checkpoint ``path``, trained with ``config``, with those wanted.

    Raises:
      ConfigError: they differ; names the first few, and the flags they were made with.
    """
    different = differences(stored, wanted)
    if different:
        flags = " ".join(f"--config.model.{key}={value}" for key, value in config["model"].items())
        raise ConfigError(
            f"the checkpoint {path} holds other arrays: {different}. It was made with {flags} "
            f"--config.cost_volume.bins={config['cost_volume']['bins']}: pass the same, or train in an empty --workdir"
        )


def _shape(entry: tuple[tuple[int, ...], str] | None) -> str:
    return "absent" if entry is None else f"{entry[1]}{list(entry[0])}"


def check_config(stored: dict[str, Any], config: Config, path: Any) -> None:
    """Compares the config of the checkpoint ``path`` with another, except for the fields :data:`MAY_DIFFER`.

    Raises:
      ConfigError: they differ; names the fields, and the flags that make them equal.
    """
    there, here = _flatten(configs.to_dict(configs.from_dict(stored))), _flatten(configs.to_dict(config))
    different = [key for key in here if key not in MAY_DIFFER and there[key] != here[key]]
    if different:
        fields = "; ".join(f"{key} was {there[key]!r} and is {here[key]!r}" for key in different)
        flags = " ".join(f"--config.{key}={there[key]}" for key in different)
        raise ConfigError(f"{path} was trained with another config: {fields}. Pass {flags}, or train in an empty --workdir")


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _dict_keys(tree: Any) -> list[Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [key.key for path, _ in leaves for key in path if isinstance(key, jax.tree_util.DictKey)]


def _restore_integer_keys(tree: Any) -> Any:
    """NNX keeps lists of layers as dicts with integer keys, which Orbax returns as strings if it has no template."""
    if not isinstance(tree, dict):
        return tree
    return {int(key) if key.isdigit() else key: _restore_integer_keys(value) for key, value in tree.items()}
