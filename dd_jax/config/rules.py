"""Validation of a config: allowed values of single fields and of combinations, checked before anything is compiled."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from dd_jax.config import Config, ConfigError


def check_frame_step(step: float | int) -> None:
    """Raises ConfigError if ``data.frame_step`` is not a positive integer."""
    if type(step) is not int or step < 1:
        raise ConfigError(f"--config.data.frame_step={step} must be a whole number of frames, 1 or more")


def validate(config: Config, num_devices: int = 1, num_processes: int = 1) -> None:
    """Checks all fields; ``num_devices`` is over all processes.

    Raises:
      ConfigError: one sentence with the problem and the flag to change.
    """
    data, model, volume, loss, optim, train = (
        config.data, config.model, config.cost_volume, config.loss, config.optim, config.train
    )  # fmt: skip

    def require(ok: bool, message: str) -> None:
        if not ok:
            raise ConfigError(message)

    def one_of(flag: str, value: Any, allowed: tuple) -> None:
        require(value in allowed, f"--config.{flag}={value!r} is not one of {', '.join(map(repr, allowed))}")

    def within(flag: str, value: float | int, low: float | int, high: float | int) -> None:
        require(low <= value <= high, f"--config.{flag}={value} must be between {low:g} and {high:g}")

    for section, fields in dataclasses.asdict(config).items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            finite = not isinstance(value, float) or math.isfinite(value)
            require(finite, f"--config.{section}.{name}={value} must be a finite number")
    one_of("data.source", data.source, ("kitti", "cityscapes", "folder", "tfds"))
    one_of("data.split", data.split, ("", "eigen_zhou", "eigen_full", "benchmark", "odom"))
    one_of("data.layout", data.layout, ("", "triplets", "sequence"))
    one_of("data.intrinsics", data.intrinsics, ("calib", "nominal"))
    one_of("data.resize", data.resize, ("area", "lanczos"))
    one_of("data.masks", data.masks, ("files", "none"))
    one_of("data.priors", data.priors, ("files", "none"))
    one_of("data.mask_format", data.mask_format, ("binary", "cityscapes", "cityscapes_train", "coco_panoptic"))
    one_of("model.student_layers", model.student_layers, (18, 34, 50))
    one_of("model.precision", config.model.precision, ("float32", "bfloat16"))
    one_of("cost_volume.binning", volume.binning, ("linear", "inverse", "log"))
    one_of("cost_volume.aggregate", volume.aggregate, ("min", "mean"))
    one_of("cost_volume.occlusion", volume.occlusion, ("none", "set_one", "feature_pool", "cost_fill"))
    require(
        volume.window > 0 and volume.window % 2 == 1,
        f"--config.cost_volume.window={volume.window} must be a positive odd number of feature pixels",
    )
    one_of("cost_volume.features", volume.features, ("learned", "colours"))
    one_of("loss.consistency_of", loss.consistency_of, ("depth", "log"))
    within("cost_volume.range_percentile", volume.range_percentile, 0, 40)
    require(volume.temperature >= 0, f"--config.cost_volume.temperature={volume.temperature} must not be negative")
    within("cost_volume.margin", volume.margin, 0, 4)
    one_of("loss.source_reduce", loss.source_reduce, ("min", "mean"))
    one_of("loss.occlusion_rule", loss.occlusion_rule, ("switch", "union", "min"))
    one_of("loss.mask_weight", loss.mask_weight, ("off", "less", "more"))
    one_of("loss.mask_area", loss.mask_area, ("target", "intersection"))
    one_of("loss.normal_prior", loss.normal_prior, ("teacher", "file"))
    one_of("optim.rate_on_freeze", optim.rate_on_freeze, ("keep", "reset"))
    one_of("train.backend", train.backend, ("pmap", "jit"))
    one_of("train.init_student", train.init_student, ("fresh", "teacher"))
    one_of("train.remat", train.remat, ("none", "convolutions", "blocks"))
    one_of("eval.crop", config.eval.crop, ("eigen", "cityscapes", "none"))
    one_of("eval.resize", config.eval.resize, ("disparity", "depth"))
    one_of("eval.median", config.eval.median, ("average", "lower"))
    one_of("eval.ground_truth", config.eval.ground_truth, ("velodyne", "annotated", "file"))
    one_of("eval.object_masks", config.eval.object_masks, ("native", "network"))
    one_of("eval.scaling", config.eval.scaling, ("median", "given", "none", "camera_height"))

    for flag, size in (("height", data.height), ("width", data.width)):
        require(
            size > 0 and size % 32 == 0,
            f"--config.data.{flag}={size} must be a multiple of 32, because the encoder halves the image five times: "
            f"the nearest are {max(32, size // 32 * 32)} and {size // 32 * 32 + 32}",
        )
    check_frame_step(data.frame_step)
    require(data.batch_size > 0, f"--config.data.batch_size={data.batch_size} must be positive")
    require(
        data.batch_size % num_devices == 0,
        f"--config.data.batch_size={data.batch_size} is global and must be divisible by the {num_devices} devices",
    )
    share = data.batch_size // num_devices
    require(
        train.microbatches > 0 and share % train.microbatches == 0,
        f"--config.train.microbatches={train.microbatches} must divide the {share} samples per device "
        f"(--config.data.batch_size={data.batch_size} over {num_devices} devices)",
    )
    require(
        num_processes == 1 or train.backend == "jit",
        f"--config.train.backend=pmap copies the whole state in every step with {num_processes} processes: "
        "set --config.train.backend=jit",
    )
    require(
        data.split == "" or data.source in ("kitti", "tfds"),  # a TFDS store keeps its split
        "--config.data.split is for --config.data.source=kitti: set it to ''",
    )
    require(
        config.eval.ground_truth != "file" or data.ground_truth_file != "",
        "--config.eval.ground_truth=file needs a file: set --config.data.ground_truth_file",
    )
    require(
        data.root != "",
        "--config.data.root is empty: set it to the folder of the data set",
    )
    require(data.threads > 0, f"--config.data.threads={data.threads} must be positive")
    for name in ("flip", "jitter", "brightness", "contrast", "saturation"):
        within(f"augment.{name}", getattr(config.augment, name), 0, 1)
    within("augment.hue", config.augment.hue, 0, 0.5)
    within("augment.zoom", config.augment.zoom, 1, 2)
    within("model.width", model.width, 8, 1024)
    require(model.width % 8 == 0, f"--config.model.width={model.width} must be a multiple of 8")
    require(
        0 < model.min_depth < model.max_depth,
        f"--config.model.min_depth={model.min_depth} must be positive and below --config.model.max_depth={model.max_depth}",
    )
    for name in ("rotation_scale", "translation_scale"):
        value = getattr(model, name)
        require(value > 0, f"--config.model.{name}={value} must be positive")
    require(model.pose_refinement >= 0, f"--config.model.pose_refinement={model.pose_refinement} must not be negative")
    require(
        model.pose_refinement == 0 or (model.student and optim.freeze_step == 0),
        "--config.model.pose_refinement needs a frozen teacher and pose network, because refined poses do not train it: set "
        "--config.optim.freeze_step=0 with a student, or --config.model.pose_refinement=0",
    )
    require(
        model.pose_downscale in (1, 2, 4, 8), f"--config.model.pose_downscale={model.pose_downscale} is not one of 1, 2, 4, 8"
    )
    within("loss.scales", loss.scales, 1, 4)
    require(loss.automask_parallax >= 0, f"--config.loss.automask_parallax={loss.automask_parallax} must not be negative")
    require(
        not loss.pyramid or not config.sc.enabled,
        "--config.loss.pyramid has no effect on SC-DepthV3, which trains the finest scale only: set it to False",
    )
    require(model.flow_scale > 0, f"--config.model.flow_scale={model.flow_scale} must be positive")
    require(
        not model.flow or optim.freeze_step != 0,
        "--config.model.flow trains with teacher and pose, which --config.optim.freeze_step=0 freezes: use a later freeze_step",
    )
    require(
        model.initial_depth == 0 or model.min_depth < model.initial_depth < model.max_depth,
        f"--config.model.initial_depth={model.initial_depth} must be 0 or between --config.model.min_depth and max_depth",
    )
    require(
        model.min_depth <= volume.min_depth < volume.max_depth <= model.max_depth,
        f"the initial bins, --config.cost_volume.min_depth={volume.min_depth} to "
        f"--config.cost_volume.max_depth={volume.max_depth}, must be within "
        f"--config.model.min_depth={model.min_depth} to --config.model.max_depth={model.max_depth}",
    )
    within("cost_volume.bins", volume.bins, 2, 4096)
    require(volume.pool_radius >= 0, f"--config.cost_volume.pool_radius={volume.pool_radius} must not be negative")
    within("cost_volume.pool_threshold", volume.pool_threshold, 0, 1)
    within("cost_volume.tracker_momentum", volume.tracker_momentum, 0, 1)
    require(
        volume.static_probability >= 0
        and volume.zero_pose_probability >= 0
        and volume.static_probability + volume.zero_pose_probability <= 1,
        "--config.cost_volume.static_probability and zero_pose_probability must not be negative and add up to at most 1",
    )
    one_of("domd.depth", config.domd.depth, ("teacher", "ground", "ground_or_border"))
    require(
        config.domd.depth == "teacher" or (config.domd.enabled and model.student),
        f"--config.domd.depth={config.domd.depth} has no effect without DOMD: "
        "set --config.domd.enabled=True with a student, or teacher",
    )
    require(config.domd.upscale >= 1, f"--config.domd.upscale={config.domd.upscale} must be at least 1")
    require(
        not (config.domd.enabled and model.student and data.masks == "none"),
        "DOMD needs object masks: set --config.domd.enabled=False, or --config.data.masks=files",
    )
    require(
        not config.domd.exclude_from_loss or (config.domd.enabled and loss.occlusion_rule != "min"),
        "--config.domd.exclude_from_loss turns all objects into holes: set --config.domd.enabled=True, and "
        "--config.loss.occlusion_rule to switch or union, which mask holes",
    )
    within("loss.ssim", loss.ssim, 0, 1)
    for name in (
        "smoothness",
        "pyramid_distillation",
        "automask_noise",
        "consistency",
        "dynamic_cycle",
        "normal_l1",
        "normal_rank",
        "pose_cycle",
    ):
        value = getattr(loss, name)
        require(value >= 0, f"--config.loss.{name}={value} must not be negative")
    for name in ("dynamic_cycle", "normal_l1", "normal_rank"):
        require(
            model.student or (config.sc.enabled and name != "dynamic_cycle") or getattr(loss, name) == 0,
            f"--config.loss.{name} needs a student: set it to 0, or --config.model.student=True",
        )
    for name in ("dynamic_cycle", "pose_cycle"):
        require(
            getattr(loss, name) == 0 or optim.freeze_step != 0,
            f"--config.loss.{name} trains networks that --config.optim.freeze_step=0 freezes: set it to 0",
        )
    if config.sc.enabled:
        _validate_sc(config, require)
    one_of("ds.fusion", config.ds.fusion, ("min", "conv", "both"))
    if config.ds.enabled:
        _validate_ds(config, require)
    require(
        loss.normal_prior == "teacher" or data.priors == "files",
        "--config.loss.normal_prior=file needs prior depth: set --config.data.priors=files, or teacher",
    )
    require(loss.normal_anchors > 0, f"--config.loss.normal_anchors={loss.normal_anchors} must be positive")
    require(loss.mask_power > 0, f"--config.loss.mask_power={loss.mask_power} must be positive")
    require(
        loss.dynamic_cycle == 0 or data.masks != "none",
        "--config.loss.dynamic_cycle needs object masks: set it to 0, or --config.data.masks=files",
    )
    require(
        loss.mask_weight == "off" or data.masks != "none",
        "--config.loss.mask_weight needs object masks: set it to off, or --config.data.masks=files",
    )
    require(optim.steps > 0, f"--config.optim.steps={optim.steps} must be positive")
    require(optim.learning_rate > 0, f"--config.optim.learning_rate={optim.learning_rate} must be positive")
    require(
        optim.freeze_step < 0 or model.student,
        "--config.optim.freeze_step freezes teacher and pose, which leaves no trainable network without a student: set it to -1",
    )
    require(
        optim.freeze_step != 0 or train.init_from != "",
        "--config.optim.freeze_step=0 freezes untrained networks: set --config.train.init_from, or a later step",
    )
    require(
        train.init_student == "fresh" or (train.init_from != "" and model.student and model.student_layers == 18),
        "--config.train.init_student=teacher copies the teacher of --config.train.init_from, which has 18 layers: set init_from, "
        "and --config.model.student_layers=18",
    )
    require(
        train.init_from == "" or train.init_encoders == "",
        "--config.train.init_from includes encoders: leave out --config.train.init_encoders",
    )
    for entry in train.init_encoders.split(",") if train.init_encoders else ():
        require(
            re.fullmatch(r"[^#]+(#[0-9a-f]{8,64})?", entry) is not None,
            f"--config.train.init_encoders: {entry!r} is not FILE or FILE#DIGEST with the first 8 or more digits of a SHA-256",
        )
    for name in ("log_every", "checkpoint_every", "keep"):
        value = getattr(train, name)
        require(value > 0, f"--config.train.{name}={value} must be positive")
    require(config.eval.batch_size > 0, f"--config.eval.batch_size={config.eval.batch_size} must be positive")
    for name in ("scale", "camera_height"):
        require(getattr(config.eval, name) > 0, f"--config.eval.{name}={getattr(config.eval, name)} must be positive")
    pitch = config.eval.camera_pitch
    require(abs(pitch) < 90, f"--config.eval.camera_pitch={pitch} must be between -90 and 90 degrees")
    require(
        0 < config.eval.min_depth < config.eval.max_depth,
        f"--config.eval.min_depth={config.eval.min_depth} must be positive and below "
        f"--config.eval.max_depth={config.eval.max_depth}",
    )


def _validate_sc(config: Config, require: Callable[[bool, str], None]) -> None:
    sc, loss = config.sc, config.loss
    require(not config.model.student, "--config.sc.enabled is a single-frame method: set --config.model.student=False")
    for name in ("smoothness", "pyramid_distillation", "pose_cycle"):
        require(getattr(loss, name) == 0, f"--config.loss.{name} is not used by --config.sc.enabled: set it to 0")
    require(loss.mask_weight == "off", "--config.loss.mask_weight is not used by --config.sc.enabled: set it to off")
    require(not config.model.flow, "--config.model.flow is not used by --config.sc.enabled: set it to False")
    require(0 <= sc.ssim <= 1, f"--config.sc.ssim={sc.ssim} must be between 0 and 1")
    for name in ("geometry", "depth_rank"):
        value = getattr(sc, name)
        require(value >= 0, f"--config.sc.{name}={value} must not be negative")
    needed = sc.depth_rank > 0 or loss.normal_l1 > 0 or loss.normal_rank > 0
    require(
        not needed or config.data.priors == "files",
        "--config.sc.depth_rank, loss.normal_l1 and loss.normal_rank need prior depth: set --config.data.priors=files",
    )
    require(
        loss.normal_prior == "file" or loss.normal_l1 == loss.normal_rank == 0,
        "--config.sc.enabled takes the prior of normals from files: set --config.loss.normal_prior=file",
    )


def _validate_ds(config: Config, require: Callable[[bool, str], None]) -> None:
    ds = config.ds
    require(config.model.student, "--config.ds.enabled needs a student: set --config.model.student=True")
    require(not config.domd.enabled, "--config.ds.enabled models moving objects by flow: set --config.domd.enabled=False")
    require(not config.model.flow, "--config.ds.enabled has its own flow network: set --config.model.flow=False")
    require(0 <= ds.cost_ssim <= 1, f"--config.ds.cost_ssim={ds.cost_ssim} must be between 0 and 1")
    require(
        not config.cost_volume.future_frame,
        "--config.ds.enabled matches only with the previous frame: set --config.cost_volume.future_frame=False",
    )
    require(
        config.cost_volume.window == 1,
        "--config.cost_volume.window has no effect on --config.ds.enabled, whose costs have the window of SSIM: set it to 1",
    )
    require(ds.flow_smoothness >= 0, f"--config.ds.flow_smoothness={ds.flow_smoothness} must not be negative")
    require(
        config.optim.freeze_step != 0,
        "--config.ds.enabled trains its flow network with the teacher, which --config.optim.freeze_step=0 freezes: set it later",
    )
