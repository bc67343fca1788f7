"""A trained model with another place of its data or another protocol than in its training."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dd_jax.checkpoints import saved
from dd_jax.checkpoints.run_folder import Restored
from dd_jax.config import DataConfig, EvalConfig, protocols
from dd_jax.config.rules import validate


def workdir_of(directory: str | Path) -> Path:
    """The folder of a run or of a saved model, also if its ``checkpoints`` folder is given."""
    workdir = Path(directory).expanduser()
    return workdir.parent if workdir.name == "checkpoints" else workdir


def restore(
    directory: str | Path,
    which: str = "best",
    data_root: str = "",
    protocol: str = "",
    changes: Mapping[str, object] = MappingProxyType({}),
    ground_truth_file: str = "",
    allow_pickle: bool = False,
    split_dir: str = "",
    cache_dir: str = "",
) -> tuple[Restored, DataConfig, EvalConfig]:
    """A trained model with a changed config, the data of its training split, and the protocol of its training.

    Arguments as of :func:`dd_jax.evaluation.evaluate.evaluate_checkpoint`.

    Raises:
      ConfigError: an unknown checkpoint or protocol, or an invalid config.
    """
    restored = saved.restore(directory, which)
    config = restored.config
    if data_root:
        config.data.root, config.data.cache_dir = data_root, ""
    config.data.cache_dir = cache_dir or config.data.cache_dir
    config.data.ground_truth_file = ground_truth_file or config.data.ground_truth_file
    config.data.allow_pickle = allow_pickle or config.data.allow_pickle
    train_data = dataclasses.replace(config.data, priors="none")  # the training split, with the lists of the run
    config.data.split_dir = split_dir or config.data.split_dir
    trained = config.eval
    config.eval = protocols.choose(trained, protocol, changes)
    validate(config)
    return restored, train_data, trained
