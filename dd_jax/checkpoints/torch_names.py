"""PyTorch checkpoints of DynamicDepth, ManyDepth and Monodepth2, and torchvision's ResNets, as our parameter trees.

Both directions use one function, :func:`torch_name`: the name in a checkpoint of each leaf of our trees.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from dd_jax.config import ConfigError
from dd_jax.networks.resnet import BLOCKS

Tree = dict[str, Any]
StateDict = Mapping[str, np.ndarray]

NETWORKS = {
    "encoder": "student/encoder/",
    "depth": "student/decoder/",
    "mono_encoder": "teacher/encoder/",
    "mono_depth": "teacher/decoder/",
    "pose_encoder": "pose/encoder/",
    "pose": "pose/",
    "flow": "flow/",
}
"""Checkpoint files of the reference implementations -> prefix in our trees; the first match counts."""

ENCODERS = {"student": "student/encoder/resnet/", "teacher": "teacher/encoder/", "pose": "pose/encoder/"}
"""Prefixes of the residual networks."""

UNUSED = re.compile(
    r".*\.num_batches_tracked|(encoder\.)?fc\..*|prematching_conv\..*|(backprojector|projector)\..*"
    r"|height|width|use_stereo|min_depth_bin|max_depth_bin"
)
"""Entries of published checkpoints that are not parameters of the method."""

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

_RESNET = (
    (r"blocks/block(\d+)/", r"\1."),
    (r"shortcut/norm/", "downsample.1."),
    (r"shortcut/", "downsample.0."),
    (r"conv(\d)/norm/", r"bn\1."),
    (r"/", "."),
)
_MATCHING = (
    (r"^resnet/conv1/norm/", "layer0.1."),
    (r"^resnet/conv1/", "layer0.0."),
    (r"^resnet/layer1/", "layer1.1."),
    (r"^resnet/", ""),
    (r"^reduce/", "reduce_conv.0."),
    (r"^fusion/", "reduce.0."),
    *_RESNET,
)
_DECODER = (
    *((rf"^before/level{level}/", f"decoder.{8 - 2 * level}.conv.conv.") for level in range(5)),
    *((rf"^after/level{level}/", f"decoder.{9 - 2 * level}.conv.conv.") for level in range(5)),
    *((rf"^heads/scale{scale}/", f"decoder.{10 + scale}.conv.") for scale in range(4)),
)
_POSE = tuple((rf"^{name}/", f"net.{i}.") for i, name in enumerate(("squeeze", "conv1", "conv2", "out")))
_FLOW = ((r"/first/", ".0."), (r"/second/", ".2."), (r"^(i|up)conv(\d)/", r"\1conv\2.0."), (r"/", "."))
_SC_DEPTH = (
    (r"^depth_net\.encoder\.encoder\.", "mono_encoder", "encoder."),
    (r"^depth_net\.decoder\.upconvs([01])\.(\d)\.", "mono_depth", r"decoder.\2+\1."),
    (r"^depth_net\.decoder\.dispconvs\.(\d)\.", "mono_depth", r"decoder.1\1."),
    (r"^pose_net\.encoder\.encoder\.", "pose_encoder", "encoder."),
    (r"^pose_net\.decoder\.conv_squeeze\.", "pose", "net.0."),
    (r"^pose_net\.decoder\.convs_pose\.0\.", "pose", "net.1."),
    (r"^pose_net\.decoder\.convs_pose\.1\.", "pose", "net.2."),
    (r"^pose_net\.decoder\.convs_pose\.2\.", "pose", "net.3."),
)
_RULES = {
    "encoder": _MATCHING,
    "depth": _DECODER,
    "mono_encoder": ((r"^", "encoder."), *_RESNET),
    "mono_depth": _DECODER,
    "pose_encoder": ((r"^", "encoder."), *_RESNET),
    "pose": _POSE,
    "flow": _FLOW,
}


def torch_name(path: str) -> tuple[str, str]:
    """``teacher/encoder/conv1/norm/var`` -> ``("mono_encoder", "encoder.bn1.running_var")``."""
    network = next(name for name, prefix in NETWORKS.items() if path.startswith(prefix))
    return network, _rewrite(path.removeprefix(NETWORKS[network]), _RULES[network])


def from_torch(state_dicts: Mapping[str, StateDict], trees: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
    """Our ``(params, batch_stats)`` with every network of ``state_dicts`` replaced.

    Args:
      state_dicts: PyTorch state dict of each of :data:`NETWORKS` to import, arrays in PyTorch's layout.
      trees: ``(params, batch_stats)`` of the receiving model, arrays or shapes.

    Raises:
      ConfigError: unknown network, or entries that are missing, unexpected, of another shape or not finite; lists them.
    """
    unknown = set(state_dicts) - set(NETWORKS)
    if unknown:
        raise ConfigError(f"no network is named {', '.join(sorted(unknown))}; known are {', '.join(NETWORKS)}")
    table = {index: torch_name(index[1]) for index, _ in _leaves(trees)}
    table = {index: name for index, name in table.items() if name[0] in state_dicts}
    absent = set(state_dicts) - {network for network, _ in table.values()}
    if absent:
        raise ConfigError(f"this model has no {', '.join(sorted(absent))}: check --config.model.student")
    return _fill(trees, table, state_dicts)


def from_torchvision(state_dict: StateDict, trees: tuple[Tree, Tree], encoder: str) -> tuple[Tree, Tree]:
    """Our ``(params, batch_stats)`` with one of :data:`ENCODERS` replaced by an ImageNet classifier without its last layer.

    The pose encoder uses half the first kernel for each of its two images, so that equal images give the features of one.

    Raises:
      ConfigError: entries that are missing, unexpected or of another shape (as with other layers); lists them.
    """
    prefix = ENCODERS[encoder]
    table = {
        index: ("torchvision", _rewrite(index[1].removeprefix(prefix), _RESNET))
        for index, _ in _leaves(trees)
        if index[1].startswith(prefix)
    }
    if encoder == "pose" and np.ndim(state_dict.get("conv1.weight")) == 4:
        first = np.asarray(state_dict["conv1.weight"])
        state_dict = {**state_dict, "conv1.weight": np.concatenate([first, first], axis=1) / 2}
    return _fill(trees, table, {"torchvision": state_dict})


def split_sc_depth(state_dict: StateDict) -> dict[str, dict[str, np.ndarray]]:
    """The networks of one published SC-Depth file, ``depth_net.*`` and ``pose_net.*``, as :func:`from_torch` takes them.

    Its pose network outputs one pose, translation before rotation; ours has rotation first and a second, unused pose.

    Raises:
      ConfigError: an entry of neither network.
    """
    networks: dict[str, dict[str, np.ndarray]] = {}
    for key, value in state_dict.items():
        for pattern, network, replacement in _SC_DEPTH:
            found, count = re.subn(pattern, replacement, key)
            if count:
                upconv = re.fullmatch(r"decoder\.(\d+)\+(\d)\.(.*)", found)
                if upconv:
                    found = f"decoder.{2 * int(upconv[1]) + int(upconv[2])}.{upconv[3]}"
                networks.setdefault(network, {})[found] = value
                break
        else:
            raise ConfigError(f"{key} is not an entry of an SC-Depth checkpoint, which has depth_net.* and pose_net.*")
    for key in ("net.3.weight", "net.3.bias"):
        if np.ndim(networks.get("pose", {}).get(key)) > 0:
            value = np.asarray(networks["pose"][key])
            networks["pose"][key] = np.concatenate([value[3:], value[:3], np.zeros_like(value)])
    return networks


def join_sc_depth(state_dicts: Mapping[str, StateDict]) -> dict[str, np.ndarray]:
    """One state dict in SC-Depth's format, the inverse of :func:`split_sc_depth`."""
    joined = {}
    for network, state in state_dicts.items():
        for key, value in state.items():
            if network == "pose" and key.startswith("net.3."):
                value = np.concatenate([value[3:6], value[:3]])
            joined[_sc_depth_name(network, key)] = value
    return joined


def _sc_depth_name(network: str, key: str) -> str:
    if network.endswith("_encoder"):
        return f"{'depth_net' if network == 'mono_encoder' else 'pose_net'}.encoder.{key}"
    _, number, leaf = key.split(".", 2)
    place = int(number)
    if network == "pose":
        return f"pose_net.decoder.{f'convs_pose.{place - 1}' if place else 'conv_squeeze'}.{leaf}"
    part = f"upconvs{place % 2}.{place // 2}" if place < 10 else f"dispconvs.{place - 10}"
    return f"depth_net.decoder.{part}.{leaf}"


def layers_of(state_dict: StateDict, prefix: str = "") -> int | None:
    """Layers of the ResNet whose entries begin with ``prefix``: 18, 34 or 50, or None for another network."""
    counts = tuple(
        len({key.split(".")[1] for key in (k.removeprefix(prefix) for k in state_dict) if re.match(rf"layer{stage}\.\d+\.", key)})
        for stage in (2, 3, 4)
    )
    bottleneck = f"{prefix}layer4.0.conv3.weight" in state_dict
    return next((layers for layers, blocks in BLOCKS.items() if blocks[1:] == counts and (layers == 50) == bottleneck), None)


def to_torch(*trees: Tree) -> dict[str, dict[str, np.ndarray]]:
    """State dict of each network, the inverse of :func:`from_torch`.

    Args:
      trees: trees nested like ``params`` or ``batch_stats``, or parts of them; also gradients.
    """
    state_dicts: dict[str, dict[str, np.ndarray]] = {}
    for (_, path), leaf in _leaves(trees):
        network, key = torch_name(path)
        leaf = np.asarray(leaf)
        state_dicts.setdefault(network, {})[key] = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
    return state_dicts


def _fill(
    trees: tuple[Tree, Tree], table: Mapping[tuple[int, str], tuple[str, str]], state_dicts: Mapping[str, StateDict]
) -> tuple[Tree, Tree]:
    """``trees`` with each leaf of ``table`` read from ``state_dicts``."""
    flat = dict(_leaves(trees))
    missing, misshapen, unusable, used = [], [], [], set()
    for index, (network, key) in table.items():
        used.add((network, key))
        if key not in state_dicts[network]:
            missing.append(f"{network}: {key}")
            continue
        value = np.asarray(state_dicts[network][key])
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        if value.shape != flat[index].shape:  # before a copy: an expanded array may be far larger than its memory
            misshapen.append(f"{network}: {key} is {value.shape} in our layout, the model has {flat[index].shape}")
            continue
        with np.errstate(over="ignore"):
            flat[index] = value.astype(np.float32)
        if value.dtype.kind != "f" or not np.isfinite(flat[index]).all():
            unusable.append(f"{network}: {key} ({value.dtype})")
    unexpected = [
        f"{network}: {key}"
        for network, state in state_dicts.items()
        for key in sorted(state)
        if (network, key) not in used and not UNUSED.fullmatch(key)
    ]
    found = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen, "not finite floats": unusable}
    problems = [_listing(*item) for item in found.items()]
    if any(problems):
        raise ConfigError("the checkpoint does not fit the model: " + "; ".join(filter(None, problems)))
    filled = ({}, {})
    for (which, path), leaf in flat.items():
        filled[which][path] = jnp.asarray(leaf)
    params, batch_stats = (traverse_util.unflatten_dict(tree, sep="/") for tree in filled)
    return params, batch_stats


def _listing(title: str, entries: list[str], limit: int = 8) -> str:
    more = f" and {len(entries) - limit} more" if len(entries) > limit else ""
    return f"{title}: {', '.join(entries[:limit])}{more}" if entries else ""


def _leaves(trees: tuple[Tree, ...]) -> Iterator[tuple[tuple[int, str], Any]]:
    """((position of the tree, path/of/the/leaf), leaf)"""
    for which, tree in enumerate(trees):
        for path, leaf in traverse_util.flatten_dict(tree, sep="/").items():
            yield (which, path), leaf


def _rewrite(path: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Applies the substitutions in order, then names the leaf as PyTorch does."""
    for pattern, replacement in rules:
        path = re.sub(pattern, replacement, path)
    head, _, leaf = path.rpartition(".")
    return f"{head}.{_LEAVES[leaf]}"
