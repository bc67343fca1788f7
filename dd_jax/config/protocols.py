"""Published evaluation protocols by name: each sets the fields of ``EvalConfig`` consistently.

``configs/*.py`` use one as ``config.eval``; ``scripts/evaluate.py --protocol=NAME`` evaluates a checkpoint, or the predictions of
another program, with another one. Single fields can be changed in addition.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from dd_jax.config import ConfigError, EvalConfig

PROTOCOLS = ("eigen", "eigen_improved", "cityscapes", "synthetic", "make3d")


def protocol(name: str) -> EvalConfig:
    """The protocol ``name`` of :data:`PROTOCOLS`, as a new config.

    Raises:
      ConfigError: unknown protocol.
    """
    match name:
        case "eigen":  # 697 frames; Eigen et al. 2014 with the crop of Garg et al. 2016, as Monodepth2 and ManyDepth evaluate
            return EvalConfig(crop="eigen", ground_truth="velodyne", resize="disparity", median="average", max_depth=80.0)
        case "eigen_improved":  # 652 frames; Uhrig et al. 2017, as ManyDepth: the whole image, only predictions are clamped
            return dataclasses.replace(protocol("eigen"), crop="none", ground_truth="annotated", far_truth=True)
        case "cityscapes":  # 1,525 frames, 512 x 1664 pixels of each; as DynamicDepth. ManyDepth: disparity, average
            own = EvalConfig(crop="cityscapes", resize="depth", median="lower", object_masks="network", max_depth=80.0)
            return dataclasses.replace(own, camera_height=1.22, camera_pitch=2.2)  # from its camera files
        case "synthetic":  # rendered drives, all pixels except the sky
            return dataclasses.replace(protocol("eigen"), crop="none", ground_truth="annotated")
        case "make3d":  # the whole image up to 70 m: criterion C1 of Liu et al. 2014
            return dataclasses.replace(protocol("synthetic"), max_depth=70.0)
        case _:
            raise ConfigError(f"unknown evaluation protocol {name!r}: use one of {', '.join(PROTOCOLS)}")


def choose(current: EvalConfig, name: str = "", changes: Mapping[str, object] = MappingProxyType({})) -> EvalConfig:
    """``current``, or the protocol ``name`` instead, with single fields changed; the batch size is kept.

    Raises:
      ConfigError: unknown protocol.
    """
    chosen = dataclasses.replace(protocol(name), batch_size=current.batch_size) if name else current
    return dataclasses.replace(chosen, **changes)


def name_of(config: EvalConfig) -> str:
    """The protocol that has these fields, ignoring the batch size; "own" if none has."""
    return next((name for name in PROTOCOLS if choose(config, name) == config), "own")


def describe(config: EvalConfig) -> str:
    """One sentence on the protocol, for the report."""
    match config.scaling:
        case "median":
            scaling = f"scaled per image by the ratio of medians (of an even count: {config.median})"
        case "given":
            scaling = f"multiplied by {config.scale:g}"
        case "none":
            scaling = "taken as metres"
        case _:
            pitch = f", looking down by {config.camera_pitch:g} degrees" if config.camera_pitch else ""
            scaling = f"scaled per image so that the camera is {config.camera_height:g} m above the road{pitch}"
    masks = "; object masks resized to training size first" if config.object_masks == "network" else ""
    until = "on, predictions clamped to" if config.far_truth else "to"
    kind = "" if config.crop == "cityscapes" else f"{config.ground_truth} "  # Cityscapes has one kind only
    return (
        f"Protocol {name_of(config)}: {kind}ground truth from {config.min_depth:g} {until} "
        f"{config.max_depth:g} m, crop {config.crop}; predicted {config.resize} resized to the ground truth and {scaling}{masks}."
    )
