"""Saving and restoring runs; the only module that uses Orbax (its v1 API).

One checkpoint is one folder, committed by one rename: the train state, the position of the data iterator, the config, package
versions, what identifies the training data and the score on the validation split. Only complete folders are read, so a run killed
while saving loses nothing else. Bytes that changed since are found by their checksums (``checksums``).
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from dd_jax import config as configs
from dd_jax.checkpoints import checksums, comparison
from dd_jax.checkpoints.checksums import Damage
from dd_jax.checkpoints.orbax_errors import any_error_is_damage, ignore_reports, system_error_is_os_error
from dd_jax.config import Config, ConfigError
from dd_jax.runtime import versions
from dd_jax.types import TrainState

T = TypeVar("T")

SCORE = "abs_rel"
"""Metric that defines "best": the lowest one on the validation split."""


class DamagedCheckpoint(ConfigError):
    """A checkpoint that is not as it was saved.

    ``found`` says which and how, ``path`` is its folder, ``whole`` the step of another one that is whole, None if there is none.
    """

    def __init__(self, message: str, found: str = "", path: pathlib.Path = pathlib.Path(), whole: int | None = None):
        super().__init__(message)
        self.found, self.path, self.whole = found, path, whole


class UnsavedCheckpoint(ConfigError):
    """A checkpoint could not be written; the earlier ones are intact."""


@dataclasses.dataclass
class Restored:
    """One checkpoint, read back."""

    state: TrainState
    data: Any  # ``get_state()`` of the data iterator
    step: int
    score: float | None  # abs_rel on the validation split, if evaluated
    config: Config
    versions: dict[str, str]
    samples: dict[str, Any] | None = None  # what identifies the training data, if known

    @property
    def origin(self) -> dict[str, str]:
        """What the arrays depend on besides the config: versions, seed and training data."""
        data = {} if self.samples is None else {"training data": comparison.describe_samples(self.samples)}
        return self.versions | {"seed": str(self.config.train.seed)} | data


class Writer:
    """Keeps the newest ``config.train.keep`` checkpoints of a run and the best one; saves in the background.

    ``samples`` identifies the training data, see ``TripletSource.fingerprint``.

    Raises:
      UnsavedCheckpoint: the folder cannot be written; also raised by all methods, for the checkpoint saved before.
    """

    def __init__(self, workdir: str | pathlib.Path, config: Config, samples: dict[str, Any] | None = None):
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[SCORE], reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        self._about = {"config": configs.to_dict(config), "versions": versions.versions(), "samples": samples}
        self._folder = _absolute(workdir) / "checkpoints"
        ignore_reports()
        with self._writing():
            self._checkpointer = ocp.training.Checkpointer(
                self._folder,
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(config.train.keep), best]),
                cleanup_tmp_directories=True,
            )
        self._saving = None  # the checkpoint that is being written, if any

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
        about = {**self._about, "data": data, "score": score}
        about["integer_keys"] = any(isinstance(key, int) for key in _dict_keys(tree))
        self.wait()
        with self._writing():
            self._saving = self._checkpointer.save_checkpointables_async(
                step,
                {"state": tree},
                metrics=None if score is None else {SCORE: score},
                custom_metadata=checksums.add(json.loads(json.dumps(about)), tree, comparison.by_path(tree)),
                force=True,
            )
        return True

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints that are kept, oldest first."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def wait(self) -> None:
        """Returns when everything is on disk."""
        if self._saving is not None:  # Orbax keeps a thread and three file handles of a save until it is asked for the result
            saving, self._saving = self._saving, None
            with self._writing():
                saving.result()

    def close(self) -> None:
        """Finishes saving and closes the folder."""
        self.wait()
        with self._writing():
            self._checkpointer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with system_error_is_os_error(self._folder):
                yield
        except OSError as error:
            raise UnsavedCheckpoint(
                f"no checkpoint can be written to {self._folder} ({error.strerror or error}): make room there, then the same "
                f"command continues from step {newest(self._folder) or 0}"
            ) from error

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.nullcontext() if kind is None else contextlib.suppress(UnsavedCheckpoint):  # the first error is raised
            self.close()


def newest(directory: str | pathlib.Path, before: int | float = math.inf) -> int | None:
    """Step of the newest complete checkpoint in the folder (of a run, or its ``checkpoints``); None if there is none.

    ``before``: of those before this step.
    """
    return max((step for step in _steps(_folder(directory)) if step < before), default=None)


def restore(
    directory: str | pathlib.Path,
    abstract_state: TrainState | dict[str, Any],
    config: Config | None = None,
    samples: dict[str, Any] | None = None,
    before: int | float = math.inf,
) -> Restored:
    """The newest checkpoint, bit for bit, to resume training.

    Args:
      directory: the workdir of a run, or its ``checkpoints`` folder.
      abstract_state: a fresh state, or a dict of its fields, with arrays or shapes as leaves; leaves with a sharding keep
        it, the others go to the first device. The number of devices that wrote the checkpoint does not matter.
      config: of the resuming run; every field that changes a number must be the same (``comparison.MAY_DIFFER`` lists the rest).
      samples: of the resuming run, see :class:`Writer`; must be the same, unless ``config.train.other_data``.
      before: the newest of those before this step.

    Raises:
      DamagedCheckpoint: the newest one is damaged, or the score of another, which a resumed run reads too.
      ConfigError: no checkpoint, another config, other data, or other networks than those of ``abstract_state``.
    """
    folder = _folder(directory)
    steps, wanted = [step for step in _existing_steps(folder) if step < before], _as_dict(abstract_state)

    def read(step: int) -> Restored:
        path = folder / str(step)
        about, stored = _read_about(path)
        if config is not None:
            comparison.check_config(configs.to_dict(_config(about, path)), config, path)
            comparison.check_samples(about.get("samples"), samples, config, path)
        comparison.check_tree(stored, wanted, path, about["config"])
        return _restored(_load(path, jax.tree.map(_where_wanted, wanted), about), path, about)

    remedy = "--config.train.skip_damaged=True"
    for step in steps:
        _or_name_another(folder, step, steps, lambda step: _score(folder / str(step)), remedy)
    return _or_name_another(folder, steps[-1], steps, read, remedy)


def restore_params(directory: str | pathlib.Path, which: str | int = "best", expected: dict[str, Any] | None = None) -> Restored:
    """Networks without the optimiser state (``state.opt_state`` is None), to evaluate, predict or start from.

    Args:
      directory: the workdir of a run, or its ``checkpoints`` folder.
      which: "best" (the latest if no checkpoint has a score) | "latest" | a step.
      expected: ``{"params": ..., "batch_stats": ...}`` that the stored networks must match.

    Raises:
      DamagedCheckpoint: it is damaged, or another one so that the best is unknown.
      ConfigError: no such checkpoint, or other networks than expected.
    """
    folder = _folder(directory)
    steps = _existing_steps(folder)

    def read(step: int) -> Restored:
        about, stored = _read_about(folder / str(step))
        for name, tree in (expected or {}).items():
            comparison.check_tree({name: stored[name]}, {name: tree}, folder / str(step), about["config"])
        abstract = jax.tree.map(_on_one_device, stored, is_leaf=comparison.is_array)
        abstract["opt_state"] = jax.tree.map(lambda _: ocp.PLACEHOLDER, stored["opt_state"], is_leaf=comparison.is_array)
        state = _load(folder / str(step), abstract, about)
        if about["integer_keys"]:
            state = _restore_integer_keys(state)
        return _restored(state | {"opt_state": None}, folder / str(step), about)

    def score(step: int) -> float:
        path = folder / str(step)
        return math.inf if _score(path) is None else _read_about(path)[0]["score"]

    remedy = "--which={step}"
    if which == "best":
        scores = {step: _or_name_another(folder, step, steps, score, remedy) for step in steps}
        chosen = min(steps, key=lambda step: (scores[step], -step))
    elif which == "latest":
        chosen = steps[-1]
    elif str(which).isdigit() and int(which) in steps:
        chosen = int(which)
    else:
        raise ConfigError(f"no checkpoint {which!r} in {folder}: it has the steps {steps}, 'best' and 'latest'")
    return _or_name_another(folder, chosen, steps, read, remedy)


def config_of(directory: str | pathlib.Path) -> Config:
    """The config of the newest checkpoint of which it can be read; no arrays are.

    Raises:
      DamagedCheckpoint: all are damaged.
      ConfigError: no checkpoint.
    """
    folder = _folder(directory)
    steps = _existing_steps(folder)

    def read(step: int) -> Config:
        return _config(_read_about(folder / str(step))[0], folder / str(step))

    for step in reversed(steps):
        with contextlib.suppress(Damage):
            return read(step)
    return _or_name_another(folder, steps[-1], steps, read, "")


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Moves a damaged checkpoint out of its run's ``checkpoints``, to the folder ``damaged`` beside it; returns the new place."""
    target = path.parents[1] / "damaged" / path.name
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    return path.rename(target)


def _absolute(directory: str | pathlib.Path) -> pathlib.Path:
    return pathlib.Path(directory).expanduser().resolve()


def _folder(directory: str | pathlib.Path) -> pathlib.Path:
    path = _absolute(directory)
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path


def _steps(folder: pathlib.Path) -> list[int]:
    """Steps of complete checkpoints: a folder has another name until it is committed."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def _existing_steps(folder: pathlib.Path) -> list[int]:
    steps = _steps(folder)
    if not steps:
        raise ConfigError(f"no checkpoint in {folder}: name the folder of a run that saved at least one")
    return steps


def _or_name_another(folder: pathlib.Path, step: int, steps: Sequence[int], read: Callable[[int], T], remedy: str) -> T:
    """``read(step)``; if that is damaged, an error that names the newest of the other ``steps`` that can be read."""
    try:
        return read(step)
    except Damage as damage:
        whole = None
        for other in sorted(set(steps) - {step}, reverse=True):
            with contextlib.suppress(Damage):
                read(other)
                whole = other
                break
        path, found = folder / str(step), f"checkpoint {step} in {folder} is damaged ({damage})"
        helps = ", and no other one is whole: copy the run again, or train in an empty --workdir"
        if whole is not None:
            helps = f": go on from {whole} with {remedy.format(step=whole)}, or delete {path}"
        raise DamagedCheckpoint(found + helps, found, path, whole) from damage


def _read_about(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our metadata of a checkpoint, and the tree of its arrays as Orbax describes it, both verified.

    Raises:
      Damage: they cannot be read, or are not those saved.
      ConfigError: dd_jax did not write it.
    """
    with any_error_is_damage("its metadata cannot be read"):
        metadata = ocp.checkpointables_metadata(path)
    about, stored = metadata.custom_metadata, metadata.metadata.get("state")
    if not about:
        raise Damage("its metadata are missing or cannot be read")
    if not {"config", checksums.PARTS} & {*about}:
        raise ConfigError(f"{path} is a checkpoint that dd_jax did not write")
    if not stored:
        raise Damage("its arrays are missing or cannot be read")
    checksums.verify_about(about, comparison.by_path(stored))
    if _score(path) != about["score"]:
        raise Damage("its score is not the one saved")
    return about, stored


def _score(path: pathlib.Path) -> float | None:
    """The score of a checkpoint where Orbax keeps it, to choose the best one; None if it has none.

    Raises:
      Damage: it cannot be read, which would also stop a run that continues.
    """
    file = path / "metrics" / "metrics"
    with any_error_is_damage("its score cannot be read"):
        return float(json.loads(file.read_text())[SCORE]) if file.exists() else None


def _load(path: pathlib.Path, abstract: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """The arrays, verified; raises Damage."""
    with any_error_is_damage("its arrays cannot be read"):
        state = ocp.load_checkpointables(path, {"state": abstract})["state"]
    checksums.verify(about, {name: part for name, part in state.items() if not _is_left_out(part)})
    return state


def _is_left_out(part: Any) -> bool:
    return any(leaf is ocp.PLACEHOLDER for leaf in jax.tree.leaves(part))


def _restored(state: dict[str, Any], path: pathlib.Path, about: dict[str, Any]) -> Restored:
    config, step = _config(about, path), int(path.name)
    return Restored(TrainState(**state), about["data"], step, about["score"], config, about["versions"], about.get("samples"))


def _config(about: dict[str, Any], path: pathlib.Path) -> Config:
    try:
        return configs.from_dict(about["config"])
    except ConfigError as error:
        by = f"dd_jax {about['versions'].get('dd_jax')}, commit {about['versions'].get('git', 'unknown')}"
        raise ConfigError(f"{path} is of another version ({error}): use that one, {by}, or an empty --workdir") from error


def _as_dict(state: TrainState | dict[str, Any]) -> dict[str, Any]:
    """The plain tree that is stored: the format does not depend on our classes."""
    return state if isinstance(state, dict) else {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _on_one_device(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))


def _where_wanted(x: Any) -> jax.ShapeDtypeStruct:
    """Placement by the caller, not by the checkpoint: its devices may not exist here."""
    sharding = getattr(x, "sharding", None)
    return _on_one_device(x) if sharding is None else jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _dict_keys(tree: Any) -> list[Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [key.key for path, _ in leaves for key in path if isinstance(key, jax.tree_util.DictKey)]


def _restore_integer_keys(tree: Any) -> Any:
    """NNX keeps lists of layers as dicts with integer keys, which Orbax returns as strings if it has no template."""
    if not isinstance(tree, dict):
        return tree
    return {int(key) if key.isdigit() else key: _restore_integer_keys(value) for key, value in tree.items()}
