"""Arrays from the files of PyTorch programs; nothing in a file is ever run."""

import argparse
import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from dd_jax.config import ConfigError

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
"""Kinds of files; all but the first are pickles, which PyTorch reads."""

WRAPPERS = ("state_dict", "model")
"""Entries in which training frameworks keep the arrays, beside what else they remember."""


def read(path: Path) -> dict[str, np.ndarray]:
    """State dict of one file: arrays in PyTorch's layout and numbers, by PyTorch's names.

    Raises:
      ConfigError: another kind of file, a damaged one, one that holds code, or a pickle where PyTorch is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} is none of {', '.join(SUFFIXES)}: give a file that PyTorch or safetensors wrote")
    if path.suffix == ".safetensors":
        return _without_wrapper(_read_safetensors(path))
    found = _read_pickle(path)
    wrapper = next((name for name in WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(name), Mapping)), None)
    found = found if wrapper is None else found[wrapper]
    if not isinstance(found, Mapping):
        raise ConfigError(f"{path} holds a {type(found).__name__} and no arrays by name: give a file with a state dict")
    return _without_wrapper({str(key): _as_array(value, f"{path}: {key}") for key, value in found.items()})


def sha256(path: Path) -> str:
    """Of the file's content, in hexadecimal.

    Raises:
      ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error.strerror or error) from error


def _unreadable(path: Path, why: object) -> ConfigError:
    return ConfigError(f"{path} is missing, cut off or damaged ({why}): copy it again")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load(path.read_bytes())
    except KeyError as error:
        raise ConfigError(f"{path} holds arrays of the type {error}, which NumPy does not have: save them as float32") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, _first_line(error)) from error


def _read_pickle(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ConfigError(f"{path} needs PyTorch to be read: pip install torch, or convert the file to .safetensors") from error
    try:
        # Lightning keeps a script's flags in a Namespace, which is nothing but names and values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how old the file is; whether it can be read shows
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            raise _unreadable(path, "it is no PyTorch file") from error
        raise ConfigError(
            f"{path} was not read: it asks for {code[1]}, and what a file may ask for so can run anything; "
            "get it as .safetensors, or take the arrays out of it where you trust it"
        ) from error
    except Exception as error:  # a damaged pickle fails wherever it is damaged
        raise _unreadable(path, _first_line(error)) from error


def _as_array(value: Any, where: str) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # NumPy has no such type
        try:
            return value.numpy()
        except (TypeError, RuntimeError) as error:
            raise ConfigError(f"{where} is a {value.dtype} that NumPy does not have: save it as float32") from error
    if isinstance(value, (bool, int, float)):
        return np.asarray(value)
    raise ConfigError(f"{where} is a {type(value).__name__} and no array: give a file with the state dict alone")


def _without_wrapper(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the ``module.`` that PyTorch's training on several devices puts before every name."""
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
