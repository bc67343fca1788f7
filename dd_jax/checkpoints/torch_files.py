"""Arrays from PyTorch files; code in a file is never run."""

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
"""File types; all but the first are pickles, which PyTorch reads."""

WRAPPERS = ("state_dict", "model")
"""Entries under which training frameworks keep the state dict among other data."""


WRAPPED = re.compile(r"(?<![^.])(module|_orig_mod)\.")


def read(path: Path) -> dict[str, np.ndarray]:
    """State dict of one file: arrays and numbers under PyTorch's names and in its layout.

    Raises:
      ConfigError: another file type, a damaged file, one that holds code, or a pickle without PyTorch installed.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} is not one of {', '.join(SUFFIXES)}: give a file that PyTorch or safetensors wrote")
    if path.suffix == ".safetensors":
        return _without_wrapper(_read_safetensors(path))
    found = _read_pickle(path)
    wrapper = next((name for name in WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(name), Mapping)), None)
    found = found if wrapper is None else found[wrapper]
    if not isinstance(found, Mapping):
        raise ConfigError(f"{path} holds a {type(found).__name__}, not arrays by name: give a file with a state dict")
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
        # Lightning keeps a script's flags in a Namespace, which holds only names and values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old file formats, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            raise _unreadable(path, "it is not a PyTorch file") from error
        raise ConfigError(
            f"{path} was not read: it calls {code[1]}, and such a file can run any code; "
            "get it as .safetensors, or extract the arrays yourself if you trust it"
        ) from error
    except Exception as error:  # a damaged pickle may raise anything
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
    raise ConfigError(f"{where} is a {type(value).__name__}, not an array: give a file with only the state dict")


def _without_wrapper(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the names that ``DataParallel`` (module) and ``torch.compile`` (_orig_mod) put before those of a wrapped network.

    Only some of the entries have them if a part of the model was wrapped, or if sizes were added to the state dict.
    """
    found = {WRAPPED.sub("", key): value for key, value in state.items()}
    return found if len(found) == len(state) else state


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
