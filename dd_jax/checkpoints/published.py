"""Import of published PyTorch checkpoints, and export in their format.

A checkpoint is a folder with one file per network (DynamicDepth, ManyDepth, Monodepth2, DS-Depth), or one file (SC-Depth). The
config names the method; image size, layers and bins are read from the files if they have them.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from dd_jax import config as configs
from dd_jax.checkpoints import hub, saved, torch_files, torch_names
from dd_jax.checkpoints.run_folder import Restored
from dd_jax.checkpoints.torch_files import SUFFIXES
from dd_jax.config import Config, ConfigError
from dd_jax.networks import model as networks
from dd_jax.networks import pose
from dd_jax.runtime import files, versions
from dd_jax.types import TrainState

StateDicts = dict[str, dict[str, np.ndarray]]

SINGLE_FRAME = {"encoder": "mono_encoder", "depth": "mono_depth"}
"""Monodepth2's names of the networks that are the teacher of a two-frame method."""

SC_DEPTH = "sc_depth"
"""Name of the single file of an exported SC-Depth."""

IMAGENET_CLASSES = 1000
DIGEST = re.compile("[0-9a-f]{8,64}")
PREMATCHING = 16
"""Outputs of an unused convolution in the published matching encoders."""


@dataclasses.dataclass
class Imported:
    """A published model in our format."""

    restored: Restored
    remarks: list[str]  # sentences: where the files differ from the config, and what was not imported


def read(places: Sequence[str | Path], config: Config) -> Imported:
    """The model of ``config`` with the networks of a published checkpoint.

    Args:
      places: its folder, its repository on the hub (``hf://owner/name``, ``hf://owner/name@revision``), or its files, named
        as in :data:`torch_names.NETWORKS`. ``PLACE#DIGEST``: its :func:`digest` must begin with DIGEST.
      config: the method, and all settings that the files do not contain.

    Raises:
      ConfigError: a file is missing, damaged, has another digest or holds code, or the networks do not fit the config.
    """
    digests, places = _fetched(places, config)
    paths = _find_one(places) if config.sc.enabled else _find_all(places)
    for place, wanted in digests.items():
        found = digest([path for path in paths.values() if place in (path, path.parent)])
        if not found.startswith(wanted):
            raise ConfigError(f"the SHA-256 of {place} is {found} and should begin with {wanted}: it is damaged or different")
    state_dicts = {name: torch_files.read(path) for name, path in paths.items()}
    if config.sc.enabled:
        (state,) = state_dicts.values()
        state_dicts = torch_names.split_sc_depth(state)
    elif not config.model.student and "mono_encoder" not in state_dicts:
        state_dicts = {SINGLE_FRAME.get(name, name): state for name, state in state_dicts.items()}
    _check_kind(state_dicts, config)
    needed = _networks_of(config)
    missing = [name for name in needed if name not in state_dicts]
    if missing:
        where = ", ".join(map(str, places))
        raise ConfigError(f"{where}: no file for {', '.join(missing)}; {config.name} has {', '.join(needed)}: copy all files")
    config, remarks = _with_values_of_files(config, state_dicts)
    unused = sorted(set(state_dicts) - set(needed))
    if unused:
        remarks.append(f"not imported, since {config.name} does not have them as configured: {', '.join(unused)}")
    state = _state(config, {name: state_dicts[name] for name in needed}, remarks)
    origin = ", ".join(f"{path.name} (SHA-256 {torch_files.sha256(path)})" for path in paths.values())
    return Imported(Restored(state, None, 0, None, config, versions.versions() | {"imported": origin}), remarks)


def export(folder: Path, restored: Restored) -> list[Path]:
    """Writes the networks of a model as safetensors files that the published code loads, and returns their paths.

    Names, shapes and layout are those of the published ``.pth`` files, including unused entries.

    Raises:
      ConfigError: the folder cannot be written, or the published code cannot compute the model's poses.
    """
    config = restored.config
    if config.sc.enabled and config.model.initial_forward:
        raise ConfigError(
            f"this model was trained with initial_forward={config.model.initial_forward:g}, whose sign depends on the order of "
            "the frames; SC-DepthV3's published code has no such bias: export a model trained with initial_forward=0"
        )
    state_dicts = torch_names.to_torch(restored.state.params, restored.state.batch_stats)
    state_dicts["pose"] = _at_published_scale(state_dicts["pose"], config)
    if config.sc.enabled:
        state_dicts = {SC_DEPTH: torch_names.join_sc_depth(state_dicts)}
    else:
        state_dicts = {name: state | _further_entries(name, state, restored) for name, state in state_dicts.items()}
        if not config.model.student:
            names = {ours: published for published, ours in SINGLE_FRAME.items()}
            state_dicts = {names.get(name, name): state for name, state in state_dicts.items()}
    paths = []
    try:
        for name, state in state_dicts.items():
            paths.append(folder / f"{name}.safetensors")
            files.replace(paths[-1], save({key: np.asarray(x, order="C") for key, x in state.items()}, {"format": "pt"}))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror or error}): name another folder") from error
    return paths


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of a checkpoint: of its single file, or of the output of ``sha256sum`` for its files in order of names."""
    if len(paths) == 1:
        return torch_files.sha256(paths[0])
    lines = [f"{torch_files.sha256(path)}  {path.name}\n" for path in sorted(paths, key=lambda path: path.name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _fetched(places: Sequence[str | Path], config: Config) -> tuple[dict[Path, str], list[Path]]:
    """The first digits of the digest of each local place, where given, and all local places."""
    digests, local = {}, []
    for place in map(str, places):
        name, _, wanted = (place, "", "") if Path(place).exists() else place.partition("#")
        if wanted and not DIGEST.fullmatch(wanted):
            raise ConfigError(f"{place}: after # give the first 8 or more digits of a SHA-256, in lower case")
        kinds = [f"{stem}{suffix}" for stem in (["*"] if config.sc.enabled else torch_names.NETWORKS) for suffix in SUFFIXES]
        local.append(hub.fetch(name, (), kinds) if hub.is_address(name) else Path(name).expanduser())
        if wanted:
            digests[local[-1]] = wanted
    return digests, local


def _find_all(places: Sequence[Path]) -> dict[str, Path]:
    """The file of each network."""
    found: dict[str, Path] = {}
    for path in _files(places):
        if path.stem in torch_names.NETWORKS:
            if path.stem in found:
                raise ConfigError(f"{found[path.stem]} and {path} are both named {path.stem}: name the files one by one")
            found[path.stem] = path
        elif path in places:
            raise ConfigError(f"{path} is not a network of a published checkpoint, which has {', '.join(torch_names.NETWORKS)}")
    return found


def _find_one(places: Sequence[Path]) -> dict[str, Path]:
    found = _files(places)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ConfigError(f"an SC-Depth checkpoint is one file, {len(found)} were found ({names}): name the one to import")
    return {SC_DEPTH: found[0]}


def _files(places: Sequence[Path]) -> list[Path]:
    """The named files, and those in the named folders that may hold arrays."""
    found = []
    for place in places:
        if not place.exists():
            raise ConfigError(f"{place} does not exist: name the folder or the files of a checkpoint")
        within = sorted(place.iterdir()) if place.is_dir() else [place]
        found += [path for path in within if path.suffix in SUFFIXES or path == place]
    return found


def _networks_of(config: Config) -> list[str]:
    names = ["encoder", "depth"] if config.model.student else []
    names += ["mono_encoder", "mono_depth", "pose_encoder", "pose"]
    return [*names, "flow"] if config.ds.enabled or config.model.flow else names


def _check_kind(state_dicts: StateDicts, config: Config) -> None:
    """Raises ConfigError if the files are of another kind of model than the config."""
    encoder = state_dicts.get("encoder", {})
    if config.model.student and "encoder.conv1.weight" in encoder:
        raise ConfigError(
            f"the files are of a single-frame model, but {config.name} has a student: "
            "import them with --config=configs/monodepth2.py:kitti"
        )
    for name in ("mono_encoder", "pose_encoder"):
        layers = torch_names.layers_of(state_dicts.get(name, {}), "encoder.")
        if name in state_dicts and layers != pose.LAYERS:
            found = f"{layers} layers" if layers else "another architecture"
            raise ConfigError(f"{name} has {found}: single-frame and pose networks have {pose.LAYERS} layers here")


def _with_values_of_files(config: Config, state_dicts: StateDicts) -> tuple[Config, list[str]]:
    """The config with the values of the files, and a sentence for each changed field."""
    config, remarks = configs.from_dict(configs.to_dict(config)), []

    def take(section: str, name: str, value: Any) -> None:
        fields = getattr(config, section)
        before = getattr(fields, name)
        if value != before:
            remarks.append(f"{section}.{name} is {value} in the files and {before} in the config: using {value}")
            setattr(fields, name, value)

    for name in ("height", "width"):
        sizes = {network: _pixels(state, name) for network, state in state_dicts.items() if name in state}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{size} in {network}" for network, size in sizes.items())
            raise ConfigError(f"{name} is {listed}: the files are of different checkpoints, copy those of one")
        if sizes:
            take("data", name, next(iter(sizes.values())))
    first = state_dicts["mono_encoder"].get("encoder.conv1.weight")
    if first is not None and first.ndim == 4:
        take("model", "width", first.shape[0])
    if config.model.student:
        layers, reduce = torch_names.layers_of(state_dicts["encoder"]), state_dicts["encoder"].get("reduce_conv.0.weight")
        if layers is not None:
            take("model", "student_layers", layers)
        if reduce is not None and reduce.ndim == 4:
            take("cost_volume", "bins", reduce.shape[1] - reduce.shape[0])
    for name in ("rotation_scale", "translation_scale"):
        take("model", name, pose.PUBLISHED_SCALE)
    take("model", "initial_forward", 0.0)
    if any(np.any(state.get("use_stereo", False)) for state in state_dicts.values()):
        remarks.append("trained on stereo pairs: depth times 5.4 is in metres (evaluate.py --scaling=given --scale=5.4)")
    saved.check(config)
    return config, remarks


def _state(config: Config, state_dicts: StateDicts, remarks: list[str]) -> TrainState:
    shapes = jax.eval_shape(lambda: networks.initialise(config, 0))
    params, batch_stats = torch_names.from_torch(state_dicts, shapes)
    near, far = config.cost_volume.min_depth, config.cost_volume.max_depth
    encoder = state_dicts.get("encoder", {})
    if "min_depth_bin" in encoder and "max_depth_bin" in encoder:
        near, far = _number(encoder, "min_depth_bin"), _number(encoder, "max_depth_bin")
        with np.errstate(over="ignore"):
            kept = np.float32([near, far])
        if not 0 < kept[0] < kept[1] < np.inf:
            raise ConfigError(f"min_depth_bin={near:g} and max_depth_bin={far:g} are not a depth range: the file is damaged")
    elif config.model.student:
        remarks.append(f"the files have no range of the depth bins: using the config's initial {near:g} to {far:g}")
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, None, jnp.array([near, far], jnp.float32))


def _number(state: Mapping[str, np.ndarray], name: str) -> float:
    if state[name].size != 1 or state[name].dtype.kind not in "fiu" or not np.isfinite(state[name]).all():
        raise ConfigError(f"{name} is not a finite number but {state[name].dtype}{list(state[name].shape)}: the file is damaged")
    return float(state[name].reshape(()))


def _pixels(state: Mapping[str, np.ndarray], name: str) -> int:
    number = _number(state, name)
    if number != round(number) or not 0 < number < 2**31:
        raise ConfigError(f"{name} is {number:g}, not a number of pixels: the file is damaged")
    return int(number)


def _at_published_scale(state: Mapping[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """The pose decoder for outputs multiplied by the published factor; unchanged if the config has that factor."""
    ratios = np.array([config.model.rotation_scale, config.model.translation_scale]) / pose.PUBLISHED_SCALE
    factors = np.tile(ratios.repeat(3), 2).astype(np.float32)  # two poses, rotation before translation
    scaled = {"net.3.weight": state["net.3.weight"] * factors[:, None, None, None], "net.3.bias": state["net.3.bias"] * factors}
    return {**state, **scaled}


def _further_entries(name: str, state: Mapping[str, np.ndarray], restored: Restored) -> dict[str, np.ndarray]:
    """Further entries of the published files of a network, so that PyTorch finds all that its classes declare."""
    config = restored.config
    size = {"height": np.int64(config.data.height), "width": np.int64(config.data.width)}
    if name == "encoder":
        h, w, bins = config.data.height // 4, config.data.width // 4, config.cost_volume.bins
        x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
        ones = np.ones((bins, 1, h * w), np.float32)
        pixels = np.broadcast_to(np.stack([x.ravel(), y.ravel()]), (bins, 2, h * w))
        near, far = np.asarray(restored.state.depth_range)
        entries = size | {
            "min_depth_bin": near,
            "max_depth_bin": far,
            "backprojector.id_coords": np.stack([x, y]),
            "backprojector.ones": ones,
            "backprojector.pix_coords": np.concatenate([pixels, ones], axis=1),
            "prematching_conv.0.weight": np.zeros((PREMATCHING, config.model.width, 1, 1), np.float32),
            "prematching_conv.0.bias": np.zeros(PREMATCHING, np.float32),
        }
        return {key: np.asarray(value) for key, value in entries.items()}
    if name in ("mono_encoder", "pose_encoder"):
        features = state["encoder.layer4.0.bn2.weight"].shape[0]
        entries = {
            "encoder.fc.weight": np.zeros((IMAGENET_CLASSES, features), np.float32),
            "encoder.fc.bias": np.zeros(IMAGENET_CLASSES, np.float32),
        }
        if name == "mono_encoder" and not config.model.student:
            entries |= {key: np.asarray(value) for key, value in size.items()} | {"use_stereo": np.asarray(False)}
        return entries
    return {}
