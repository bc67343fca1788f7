"""The field's ways to measure depth, by name: each is a consistent group of the fields of ``EvalConfig``.

``configs/*.py`` take one as ``config.eval``, ``scripts/evaluate.py --protocol=NAME`` measures an existing checkpoint, or the
predictions of another program, under another one. Any field can be changed besides.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from dd_jax.config import ConfigError, EvalConfig

PROTOCOLS = ("eigen", "eigen_improved", "cityscapes", "synthetic", "make3d")


def protocol(name: str) -> EvalConfig:
    """The protocol ``name`` of :data:`PROTOCOLS`, as a new config.

    Raises:
      ConfigError: no protocol of that name.
    """
    match name:
        case "eigen":  # 697 frames; Eigen et al. 2014 with the crop of Garg et al. 2016, as Monodepth2 and ManyDepth evaluate
            return EvalConfig(crop="eigen", ground_truth="velodyne", resize="disparity", median="average", max_depth=80.0)
        case "eigen_improved":  # 652 frames; Uhrig et al. 2017, as ManyDepth: the whole map, only predictions are clamped
            return dataclasses.replace(protocol("eigen"), crop="none", ground_truth="annotated", far_truth=True)
        case "cityscapes":  # 1,525 frames, 512 x 1664 pixels of each; as DynamicDepth validates. ManyDepth: disparity, average
            own = EvalConfig(crop="cityscapes", resize="depth", median="lower", object_masks="network", max_depth=80.0)
            return dataclasses.replace(own, camera_height=1.22, camera_pitch=2.2)  # as its camera files say
        case "synthetic":  # rendered drives, every pixel that is not sky
            return dataclasses.replace(protocol("eigen"), crop="none", ground_truth="annotated")
        case "make3d":  # the whole map up to 70 m: criterion C1 of Liu et al. 2014
            return dataclasses.replace(protocol("synthetic"), max_depth=70.0)
        case _:
            raise ConfigError(f"there is no evaluation protocol {name!r}: {', '.join(PROTOCOLS)}")


def choose(current: EvalConfig, name: str = "", changes: Mapping[str, object] = MappingProxyType({})) -> EvalConfig:
    """``current``, or the protocol ``name`` in its place, with single fields changed; the batch size stays.

    Raises:
      ConfigError: no protocol of that name.
    """
    chosen = dataclasses.replace(protocol(name), batch_size=current.batch_size) if name else current
    return dataclasses.replace(chosen, **changes)


def name_of(config: EvalConfig) -> str:
    """The protocol that these fields are, whatever the batch size; "own" where they are none."""
    return next((name for name in PROTOCOLS if choose(config, name) == config), "own")


def describe(config: EvalConfig) -> str:
    """One sentence on how is measured, for the report."""
    match config.scaling:
        case "median":
            scaling = f"scaled image by image by the ratio of medians (of an even count: {config.median})"
        case "given":
            scaling = f"multiplied by {config.scale:g}"
        case _:
            mounted = f", looking down by {config.camera_pitch:g} degrees" if config.camera_pitch else ""
            scaling = f"scaled image by image so that the camera is {config.camera_height:g} m above the road{mounted}"
    masks = "; object masks by way of the training size" if config.object_masks == "network" else ""
    until = "on, predictions clamped to" if config.far_truth else "to"
    kind = "" if config.crop == "cityscapes" else f"{config.ground_truth} "  # Cityscapes knows one kind only
    return (
        f"Protocol {name_of(config)}: {kind}ground truth from {config.min_depth:g} {until} "
        f"{config.max_depth:g} m, crop {config.crop}; predicted {config.resize} brought to its size and {scaling}{masks}."
    )
