"""ImageNet classifiers of torchvision and timm as initial weights of the encoders."""

import re
from pathlib import Path
from typing import Any

from dd_jax.checkpoints import hub, torch_files, torch_names
from dd_jax.config import Config, ConfigError
from dd_jax.networks import pose

ON_HUB = "model.safetensors"
"""Name of the weights in timm's repositories."""

NAMED_DIGEST = re.compile(r"-([0-9a-f]{8})\.pth$")
"""PyTorch's file names contain the first digits of their SHA-256: ``resnet18-f37072fd.pth``."""


def fill_encoders(trees: tuple[dict[str, Any], dict[str, Any]], config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """``(params, batch_stats)`` with encoders from ``config.train.init_encoders``, each from the entry with as many layers.

    Raises:
      ConfigError: an entry is missing, damaged, has another digest or fits no encoder; or an encoder has no entry.
    """
    needed = {name: pose.LAYERS for name in torch_names.ENCODERS}
    needed["student"] = config.model.student_layers
    if not config.model.student:
        del needed["student"]
    left = dict(needed)
    for entry in config.train.init_encoders.split(","):
        place, _, digest = entry.partition("#")
        state = torch_files.read(_checked(place, digest))
        layers = torch_names.layers_of(state)
        fitting = [name for name, wanted in needed.items() if wanted == layers]
        if not fitting:
            found = "not a ResNet of 18, 34 or 50 layers" if layers is None else f"a ResNet of {layers} layers"
            raise ConfigError(f"--config.train.init_encoders: {place} is {found}; needed are {_layers(needed)}")
        for name in fitting:
            left.pop(name, None)
            try:
                trees = torch_names.from_torchvision(state, trees, name)
            except ConfigError as error:
                raise ConfigError(f"--config.train.init_encoders: {place}: {error}") from error
    if left:
        raise ConfigError(f"--config.train.init_encoders has no file for {_layers(left)}: add one with as many layers")
    return trees


def _checked(place: str, digest: str) -> Path:
    """The local file of an entry; its digest is checked."""
    path = hub.fetch(place, (ON_HUB,)) / ON_HUB if hub.is_address(place) else Path(place).expanduser()
    named = NAMED_DIGEST.search(path.name)
    for wanted in filter(None, (digest, named and named[1])):
        found = torch_files.sha256(path)
        if not found.startswith(wanted):
            raise ConfigError(
                f"--config.train.init_encoders: the SHA-256 of {path} is {found} and should begin with {wanted}: "
                "the file is damaged or a different one"
            )
    return path


def _layers(encoders: dict[str, int]) -> str:
    return ", ".join(f"{layers} ({name})" for name, layers in encoders.items())
