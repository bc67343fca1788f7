"""What a checkpoint must have in common with the model or the run that reads it: arrays, config, training data."""

from typing import Any

import jax

from dd_jax import config as configs
from dd_jax.config import Config, ConfigError

MAY_DIFFER = {
    "optim.steps", "optim.max_nonfinite",
    "train.backend", "train.remat", "train.log_every", "train.eval_every", "train.eval_frames", "train.checkpoint_every",
    "train.keep", "train.init_from", "train.init_encoders", "train.skip_damaged", "train.other_data", "eval.batch_size",
    "data.root", "data.split_dir", "data.cache_dir", "data.threads", "data.max_unreadable",
    "data.ground_truth_file", "data.allow_pickle",
}  # fmt: skip
"""Config fields that do not change the numbers of a resumed run."""


def is_array(x: Any) -> bool:
    """Whether a leaf of Orbax's description of a tree is an array."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def by_path(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_array)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(x.shape), str(x.dtype)) for path, x in leaves}


def differences(stored: Any, wanted: Any) -> str:
    """The first few key paths that only one tree has, or whose arrays differ in shape or type; empty if all agree."""
    there, here = by_path(stored), by_path(wanted)
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
    there, here = flatten(configs.to_dict(configs.from_dict(stored))), flatten(configs.to_dict(config))
    different = [key for key in here if key not in MAY_DIFFER and there[key] != here[key]]
    if different:
        fields = "; ".join(f"{key} was {there[key]!r} and is {here[key]!r}" for key in different)
        flags = " ".join(f"--config.{key}={there[key]}" for key in different)
        raise ConfigError(f"{path} was trained with another config: {fields}. Pass {flags}, or train in an empty --workdir")


def check_samples(stored: dict[str, Any] | None, here: dict[str, Any] | None, config: Config, path: Any) -> None:
    """Compares the training data of the checkpoint ``path`` with those ``here``; None = not known.

    Args:
      stored, here: see ``TripletSource.fingerprint``.

    Raises:
      ConfigError: they differ, and not ``config.train.other_data``.
    """
    if None in (stored, here) or stored == here or config.train.other_data:
        return
    there, now = (describe_samples(found) for found in (stored, here))
    what = f"its {there}, here {now}" if stored["names"] != here["names"] else f"{there} have files of other sizes here"
    raise ConfigError(
        f"{path} was trained on other data than those of --config.data.root={config.data.root!r} ({what}): give the data set of "
        "the run, train in an empty --workdir, or go on with these data by --config.train.other_data=True"
    )


def describe_samples(samples: dict[str, Any]) -> str:
    """Training data in words; see ``TripletSource.fingerprint``."""
    return f"{samples['samples']} samples from {samples['first']!r} to {samples['last']!r}"


def changes(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Differences between the nested values of a checkpoint and those of the run that continues it, one entry each.

    What only one of them knows, as versions before and after a new package, is no difference.
    """
    there, here = flatten(there), flatten(here)
    return [f"{key} is {here[key]}, was {there[key]}" for key in there if key in here and there[key] != here[key]]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by ``section.field``."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
