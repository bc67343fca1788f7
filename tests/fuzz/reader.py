"""What the fuzzing knows about one reader."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutations
import numpy as np

from dd_jax.config import ConfigError


@dataclass(frozen=True)
class Reader:
    """A function that reads one kind of file."""

    file: str  # name of the file, which its messages contain; may begin with folders
    seeds: Callable[[Path], list[bytes]]  # writes what lies beside this path, and returns valid contents
    read: Callable[[Path], Any]
    check: Callable[[Any], None]  # raises if a value is not what the reader promises
    errors: tuple[type[Exception], ...] = (ConfigError,)
    repair: Callable[[random.Random, bytes], bytes] = mutations.unrepaired
    dear: bool = False  # takes so long that a time limits the number of variants
    in_messages: str = ""  # what they contain, "": the name of the file

    def prepare(self, path: Path) -> list[bytes]:
        """The valid contents of ``path``; makes its folder and what lies beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return self.seeds(path)

    @property
    def named(self) -> str:
        """What every message contains."""
        return self.in_messages or Path(self.file).name

    def variant(self, rng: random.Random, seeds: list[bytes]) -> bytes:
        """A damaged variant of one of the seeds."""
        return mutations.variant(rng, seeds, self.repair)


def finite(*values: Any) -> None:
    """Raises unless all numbers are finite."""
    for value in values:
        assert np.isfinite(np.asarray(value, float)).all()


def is_camera(K: np.ndarray) -> None:
    """Raises unless these are intrinsics."""
    finite(K)
    assert K.shape == (3, 3) and K[0, 0] > 0 and K[1, 1] > 0
    assert (K[[1, 2, 2], [0, 0, 1]] == 0).all() and K[2, 2] == 1
