"""ImageNet classifiers of torchvision and timm, in whose features the encoders start to learn."""

import re
from pathlib import Path
from typing import Any

from dd_jax.checkpoints import hub, torch_files, torch_names
from dd_jax.config import Config, ConfigError
from dd_jax.networks import pose

ON_HUB = "model.safetensors"
"""What timm calls the weights in its repositories."""

NAMED_DIGEST = re.compile(r"-([0-9a-f]{8})\.pth$")
"""PyTorch's own files say in their names how their SHA-256 begins: ``resnet18-f37072fd.pth``."""


def fill_encoders(trees: tuple[dict[str, Any], dict[str, Any]], config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """``(params, batch_stats)`` with the encoders of ``config.train.init_encoders``, each from the entry of as many layers.

    Raises:
      ConfigError: an entry is not there, is damaged, has another digest, or fits no encoder; or an encoder is left without.
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
            found = "no ResNet of 18, 34 or 50 layers" if layers is None else f"a ResNet of {layers} layers"
            raise ConfigError(f"--config.train.init_encoders: {place} is {found}; needed are {_layers(needed)}")
        for name in fitting:
            left.pop(name, None)
            try:
                trees = torch_names.from_torchvision(state, trees, name)
            except ConfigError as error:
                raise ConfigError(f"--config.train.init_encoders: {place}: {error}") from error
    if left:
        raise ConfigError(f"--config.train.init_encoders has nothing for {_layers(left)}: add a file of as many layers")
    return trees


def _checked(place: str, digest: str) -> Path:
    """The local file of an entry, whose content is what its digest says."""
    path = hub.fetch(place, (ON_HUB,)) / ON_HUB if hub.is_address(place) else Path(place).expanduser()
    named = NAMED_DIGEST.search(path.name)
    for wanted in filter(None, (digest, named and named[1])):
        found = torch_files.sha256(path)
        if not found.startswith(wanted):
            raise ConfigError(
                f"--config.train.init_encoders: the SHA-256 of {path} is {found} and should begin with {wanted}: "
                "the file is damaged or another one"
            )
    return path


def _layers(encoders: dict[str, int]) -> str:
    return ", ".join(f"{layers} ({name})" for name, layers in encoders.items())
