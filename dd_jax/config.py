"""The whole experiment as nested typed dataclasses, and every rule that ties two fields together.

``configs/*.py`` return a ``Config``; any field is overridden on the command line (``--config.loss.smoothness=2e-3``).
``validate`` runs before anything is compiled and names the flag to change.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


class ConfigError(ValueError):
    """A value, or a combination of values, that cannot work; the message says which flag to change."""


@dataclasses.dataclass
class DataConfig:
    source: str = "kitti"  # "kitti" (raw layout, the synthetic drives too) | "cityscapes" | "folder" | "tfds" (a store of these)
    root: str = ""  # folder of the data set
    split_dir: str = ""  # folder with {train,val,test}_files.txt; "" = ROOT/splits
    height: int = 192  # training size, multiples of 32
    width: int = 640
    intrinsics: str = "calib"  # "calib" (true, per drive) | "nominal" (the field's constant KITTI matrix)
    resize: str = "area"  # "area" (OpenCV) | "lanczos" (PIL, as the references)
    masks: str = "files"  # "files" (missing file = no object) | "none"
    priors: str = "none"  # inverse depth by another network: "files" (one per target) | "none"
    batch_size: int = 12  # global, over all devices
    threads: int = 2  # decoding threads per process
    cache_dir: str = ""  # frames at training size, built on first use; "" = ROOT/.cache
    max_unreadable: int = 10  # unreadable frames skipped per split before the run stops
    split: str = ""  # KITTI: "eigen_zhou" | "eigen_full" | "benchmark" (test: eigen_benchmark) | "odom" | "" (lists of split_dir)
    ground_truth_file: str = ""  # KITTI: .npz with the depths of the test split, for eval.ground_truth=file
    allow_pickle: bool = False  # a ground_truth_file of pickled objects may run code: True = it is trusted
    layout: str = ""  # Cityscapes train and val: "triplets" (preprocessed) | "sequence" (original) | "" = triplets if any
    mask_format: str = "binary"  # mask files: "binary" (nonzero = object) | "cityscapes" (label ids) | "cityscapes_train" (train
    # ids) | "coco_panoptic" (colours, with panoptic.json beside them)


@dataclasses.dataclass
class AugmentConfig:
    flip: float = 0.5  # probability of a horizontal flip (principal point mirrored)
    jitter: float = 0.5  # probability of a colour jitter, one draw per triplet
    brightness: float = 0.2  # factor in 1 +- this; likewise contrast and saturation
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.1  # shift in +- this, of a full turn
    zoom: float = 1.0  # largest factor of a random enlargement and crop, apart for x and y; 1 = none, SC-DepthV3: 1.15


@dataclasses.dataclass
class ModelConfig:
    student: bool = True  # False: the single-frame teacher alone (monodepth2)
    student_layers: int = 18  # ResNet depth of the student encoder: 18 | 34 | 50; teacher and pose are 18 always
    width: int = 64  # channels of the first ResNet stage, in all encoders; 64 = the published networks
    flow: bool = False  # a network for the residual 3-D motion of every point, in training only
    flow_scale: float = 0.1  # factor on its output, besides the network's own 0.1
    min_depth: float = 0.1
    max_depth: float = 100.0
    initial_depth: float = 0.0  # what untrained networks say, which fixes the free scale; 0 = PyTorch's default bias, near 0.2
    rotation_scale: float = 0.01  # factor on the pose network's axis-angle; published checkpoints have 0.01
    translation_scale: float = 0.01  # likewise on its translation
    initial_forward: float = 0.0  # way ahead between frames that an untrained pose network says, in the unit of initial_depth


@dataclasses.dataclass
class CostVolumeConfig:
    bins: int = 96
    binning: str = "linear"  # "linear" | "inverse" | "log"
    min_depth: float = 0.1  # start of the adaptive range
    max_depth: float = 10.0
    tracker_momentum: float = 0.99
    aggregate: str = "min"  # over lookup frames: "min" | "mean"
    occlusion: str = "feature_pool"  # holes of the lookup frame: "none" | "set_one" | "feature_pool" | "cost_fill"
    pool_radius: int = 1
    pool_threshold: float = 0.7
    static_probability: float = 0.25  # matching augmentation: lookup := current frame
    zero_pose_probability: float = 0.25  # matching augmentation: lookup absent
    future_frame: bool = False  # match with the next frame too, in evaluation as well: depth of recorded video


@dataclasses.dataclass
class DomdConfig:
    enabled: bool = True
    upscale: int = 3  # sub-pixel density of the forward splat
    exclude_from_loss: bool = False  # paste objects into the lookup frame only


@dataclasses.dataclass
class LossConfig:
    ssim: float = 0.85  # share of SSIM in the photometric error, the rest is L1
    smoothness: float = 1e-3
    pyramid_distillation: float = 0.0  # disparities of coarse scales and the finest resemble one another; DS-Depth: 0.001
    automask: bool = True  # teacher: drop pixels that an unwarped source explains better
    automask_noise: float = 1e-5  # breaks ties between equal errors
    source_reduce: str = "min"  # over source frames: "min" | "mean"
    occlusion_rule: str = "switch"  # holes of a source: "switch" | "union" | "min" (= ignore)
    motion_mask: bool = True  # student: photometric only where matching is confident and agrees with the teacher
    consistency: float = 1.0  # student to teacher where it is not
    dynamic_cycle: float = 0.0  # teacher to student on objects
    normal_l1: float = 0.0  # student's normals like those of the teacher's depth
    normal_rank: float = 0.0  # likewise, how they turn across edges
    normal_prior: str = "teacher"  # what both compare with: depth of the "teacher" | of a "file" (data.priors)
    normal_anchors: int = 4096  # edge pixels drawn per image and kind of edge
    pose_cycle: float = 0.0  # the way to a source frame and back is no way at all
    mask_weight: str = "off"  # photometric error of samples with many object pixels counts: "off" (alike) | "less" | "more"
    mask_area: str = "target"  # object pixels: "target" (of the target frame) | "intersection" (of all frames at once)
    mask_power: float = 1.0  # exponent on the weight; 0.5 in the published code


@dataclasses.dataclass
class ScDepthConfig:
    """SC-DepthV3: a single-frame system whose frames explain one another; takes the place of the teacher's own losses."""

    enabled: bool = False
    ssim: float = 0.85  # share of SSIM (7x7) in the photometric error
    geometry: float = 0.1  # the depths of two frames agree about a point
    depth_rank: float = 0.1  # the order of depths is the prior's, above all where the motion of the camera explains little
    auto_mask: bool = True  # drop pixels that the unwarped frame explains better
    weight_mask: bool = True  # photometric error counts less where the depths of two frames disagree
    source_min: bool = True  # per pixel of the target the better source; False: both


@dataclasses.dataclass
class DsDepthConfig:
    """DS-Depth: ManyDepth with a network for the flow that rigid motion leaves, which moves a second cost volume."""

    enabled: bool = False
    flow_smoothness: float = 1e-4
    cost_ssim: float = 0.4  # share of SSIM in matching costs, the rest is L1
    fusion: str = "both"  # of the two volumes: their "min" | a "conv" of both | "both"
    own_mask: bool = True  # False: the dynamic volume is trusted where the static one is


@dataclasses.dataclass
class OptimConfig:
    steps: int = 66_000
    learning_rate: float = 1e-4
    decay_steps: int = 50_000  # multiply the rate by decay_factor every so many steps; 0 = never
    decay_factor: float = 0.1
    freeze_step: int = 50_000  # from here on teacher and pose are fixed; -1 = never
    rate_on_freeze: str = "keep"  # from there: "keep" (the schedule goes on) | "reset" (Adam and schedule start anew)
    max_nonfinite: int = 20  # abort after so many non-finite steps in a row; each is skipped and reported


@dataclasses.dataclass
class TrainConfig:
    seed: int = 0
    backend: str = "pmap"  # "pmap" | "jit"
    log_every: int = 50
    eval_every: int = 2_000  # also at the end; 0 = only at the end
    eval_frames: int = 0  # validation frames, evenly spread; 0 = all
    checkpoint_every: int = 1_000
    keep: int = 2  # newest checkpoints kept, besides the best on val
    init_from: str = ""  # checkpoint folder whose networks to start from


@dataclasses.dataclass
class EvalConfig:
    batch_size: int = 8
    min_depth: float = 1e-3
    max_depth: float = 80.0
    crop: str = "eigen"  # "eigen" (Garg crop) | "none" | "cityscapes"
    resize: str = "disparity"  # quantity brought to ground-truth size: "disparity" | "depth"
    median: str = "average"  # of an even count: "average" | "lower"
    ground_truth: str = "velodyne"  # "velodyne" (scan) | "annotated" (depth PNG; exact if synthetic) | "file" (data has its name)
    far_truth: bool = False  # ground truth beyond max_depth counts too; predictions are clamped all the same
    scaling: str = "median"  # to metres: "median" (ratio, per image) | "given" (scale) | "camera_height" (above the road)
    scale: float = 1.0  # of "given": 1 = predictions are metres, 5.4 = stereo networks of Monodepth2's family
    camera_height: float = 1.65  # of "camera_height", in metres; KITTI's


@dataclasses.dataclass
class Config:
    name: str = "dynamic_depth"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    cost_volume: CostVolumeConfig = dataclasses.field(default_factory=CostVolumeConfig)
    domd: DomdConfig = dataclasses.field(default_factory=DomdConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    sc: ScDepthConfig = dataclasses.field(default_factory=ScDepthConfig)
    ds: DsDepthConfig = dataclasses.field(default_factory=DsDepthConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)


def validate(config: Config, num_devices: int = 1) -> None:
    """Refuses what cannot work, before anything is compiled.

    Raises:
      ConfigError: one sentence: what is wrong, where, and the flag to change.
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
        require(low <= value <= high, f"--config.{flag}={value} must lie between {low:g} and {high:g}")

    one_of("data.source", data.source, ("kitti", "cityscapes", "folder", "tfds"))
    one_of("data.split", data.split, ("", "eigen_zhou", "eigen_full", "benchmark", "odom"))
    one_of("data.layout", data.layout, ("", "triplets", "sequence"))
    one_of("data.intrinsics", data.intrinsics, ("calib", "nominal"))
    one_of("data.resize", data.resize, ("area", "lanczos"))
    one_of("data.masks", data.masks, ("files", "none"))
    one_of("data.priors", data.priors, ("files", "none"))
    one_of("data.mask_format", data.mask_format, ("binary", "cityscapes", "cityscapes_train", "coco_panoptic"))
    one_of("model.student_layers", model.student_layers, (18, 34, 50))
    one_of("cost_volume.binning", volume.binning, ("linear", "inverse", "log"))
    one_of("cost_volume.aggregate", volume.aggregate, ("min", "mean"))
    one_of("cost_volume.occlusion", volume.occlusion, ("none", "set_one", "feature_pool", "cost_fill"))
    one_of("loss.source_reduce", loss.source_reduce, ("min", "mean"))
    one_of("loss.occlusion_rule", loss.occlusion_rule, ("switch", "union", "min"))
    one_of("loss.mask_weight", loss.mask_weight, ("off", "less", "more"))
    one_of("loss.mask_area", loss.mask_area, ("target", "intersection"))
    one_of("loss.normal_prior", loss.normal_prior, ("teacher", "file"))
    one_of("optim.rate_on_freeze", optim.rate_on_freeze, ("keep", "reset"))
    one_of("train.backend", train.backend, ("pmap", "jit"))
    one_of("eval.crop", config.eval.crop, ("eigen", "cityscapes", "none"))
    one_of("eval.resize", config.eval.resize, ("disparity", "depth"))
    one_of("eval.median", config.eval.median, ("average", "lower"))
    one_of("eval.ground_truth", config.eval.ground_truth, ("velodyne", "annotated", "file"))
    one_of("eval.scaling", config.eval.scaling, ("median", "given", "camera_height"))

    for flag, size in (("height", data.height), ("width", data.width)):
        require(
            size > 0 and size % 32 == 0,
            f"--config.data.{flag}={size} must be a multiple of 32, because the encoder halves the image five times; "
            f"the nearest are {max(32, size // 32 * 32)} and {size // 32 * 32 + 32}",
        )
    require(data.batch_size > 0, f"--config.data.batch_size={data.batch_size} must be positive")
    require(
        data.batch_size % num_devices == 0,
        f"--config.data.batch_size={data.batch_size} is global and must be divisible by the {num_devices} devices",
    )
    require(data.split == "" or data.source == "kitti", "--config.data.split is for --config.data.source=kitti: set it to ''")
    require(config.eval.ground_truth != "file" or data.ground_truth_file != "", "--config.data.ground_truth_file names no file")
    require(data.root != "", "--config.data.root is empty: name the folder of the data set")
    require(data.threads > 0, f"--config.data.threads={data.threads} must be positive")
    for name in ("flip", "jitter", "brightness", "contrast", "saturation"):
        within(f"augment.{name}", getattr(config.augment, name), 0, 1)
    within("augment.hue", config.augment.hue, 0, 0.5)
    within("augment.zoom", config.augment.zoom, 1, 2)
    require(model.width >= 8 and model.width % 8 == 0, f"--config.model.width={model.width} must be a positive multiple of 8")
    require(
        0 < model.min_depth < model.max_depth,
        f"--config.model.min_depth={model.min_depth} must be positive and below --config.model.max_depth={model.max_depth}",
    )
    for name in ("rotation_scale", "translation_scale"):
        value = getattr(model, name)
        require(value > 0, f"--config.model.{name}={value} must be positive")
    require(model.flow_scale > 0, f"--config.model.flow_scale={model.flow_scale} must be positive")
    require(
        not model.flow or optim.freeze_step != 0,
        "--config.model.flow trains together with teacher and pose, which --config.optim.freeze_step=0 freezes from the start",
    )
    require(
        model.initial_depth == 0 or model.min_depth < model.initial_depth < model.max_depth,
        f"--config.model.initial_depth={model.initial_depth} must be 0 or lie between --config.model.min_depth and max_depth",
    )
    require(
        model.min_depth <= volume.min_depth < volume.max_depth <= model.max_depth,
        f"the bins' start, --config.cost_volume.min_depth={volume.min_depth} to "
        f"--config.cost_volume.max_depth={volume.max_depth}, must lie within "
        f"--config.model.min_depth={model.min_depth} to --config.model.max_depth={model.max_depth}",
    )
    require(volume.bins >= 2, f"--config.cost_volume.bins={volume.bins} must be at least 2")
    within("cost_volume.tracker_momentum", volume.tracker_momentum, 0, 1)
    require(
        volume.static_probability >= 0
        and volume.zero_pose_probability >= 0
        and volume.static_probability + volume.zero_pose_probability <= 1,
        "--config.cost_volume.static_probability and zero_pose_probability must not be negative and add up to at most 1",
    )
    require(config.domd.upscale >= 1, f"--config.domd.upscale={config.domd.upscale} must be at least 1")
    require(
        not (config.domd.enabled and model.student and data.masks == "none"),
        "DOMD needs object masks: set --config.domd.enabled=False, or --config.data.masks=files",
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
            f"--config.loss.{name} needs a student, and there is none: set it to 0",
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
        "--config.optim.freeze_step freezes teacher and pose, which leaves nothing to train without a student: set it to -1",
    )
    require(
        optim.freeze_step != 0 or train.init_from != "",
        "--config.optim.freeze_step=0 freezes untrained networks: give --config.train.init_from, or a later step",
    )
    for name in ("log_every", "checkpoint_every", "keep"):
        value = getattr(train, name)
        require(value > 0, f"--config.train.{name}={value} must be positive")
    require(config.eval.batch_size > 0, f"--config.eval.batch_size={config.eval.batch_size} must be positive")
    for name in ("scale", "camera_height"):
        require(getattr(config.eval, name) > 0, f"--config.eval.{name}={getattr(config.eval, name)} must be positive")
    require(
        0 < config.eval.min_depth < config.eval.max_depth,
        f"--config.eval.min_depth={config.eval.min_depth} must be positive and below "
        f"--config.eval.max_depth={config.eval.max_depth}",
    )


def _validate_sc(config: Config, require: Callable[[bool, str], None]) -> None:
    sc, loss = config.sc, config.loss
    require(not config.model.student, "--config.sc.enabled is a single-frame system: set --config.model.student=False")
    for name in ("smoothness", "pyramid_distillation", "pose_cycle"):
        require(getattr(loss, name) == 0, f"--config.loss.{name} is no term of --config.sc.enabled: set it to 0")
    require(loss.mask_weight == "off", "--config.loss.mask_weight is no part of --config.sc.enabled: set it to off")
    require(not config.model.flow, "--config.model.flow is no part of --config.sc.enabled: set it to False")
    require(0 <= sc.ssim <= 1, f"--config.sc.ssim={sc.ssim} must lie between 0 and 1")
    for name in ("geometry", "depth_rank"):
        value = getattr(sc, name)
        require(value >= 0, f"--config.sc.{name}={value} must not be negative")
    asked = sc.depth_rank > 0 or loss.normal_l1 > 0 or loss.normal_rank > 0
    require(
        not asked or config.data.priors == "files",
        "--config.sc.depth_rank, loss.normal_l1 and loss.normal_rank compare with prior depth: set --config.data.priors=files",
    )
    require(
        loss.normal_prior == "file" or loss.normal_l1 == loss.normal_rank == 0,
        "--config.sc.enabled has no other prior for normals than files: set --config.loss.normal_prior=file",
    )


def _validate_ds(config: Config, require: Callable[[bool, str], None]) -> None:
    ds = config.ds
    require(config.model.student, "--config.ds.enabled needs a student: set --config.model.student=True")
    require(not config.domd.enabled, "--config.ds.enabled finds moving objects by their flow: set --config.domd.enabled=False")
    require(not config.model.flow, "--config.ds.enabled has a flow network of its own: set --config.model.flow=False")
    require(0 <= ds.cost_ssim <= 1, f"--config.ds.cost_ssim={ds.cost_ssim} must lie between 0 and 1")
    require(
        not config.cost_volume.future_frame,
        "--config.ds.enabled matches with the previous frame alone: set --config.cost_volume.future_frame=False",
    )
    require(ds.flow_smoothness >= 0, f"--config.ds.flow_smoothness={ds.flow_smoothness} must not be negative")
    require(
        config.optim.freeze_step != 0,
        "--config.ds.enabled trains its flow network together with the teacher, which --config.optim.freeze_step=0 freezes",
    )


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dict, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of :func:`to_dict`.

    Raises:
      ConfigError: a key that this version does not know.
    """
    sections = {f.name: f.default_factory for f in dataclasses.fields(Config) if f.default_factory is not dataclasses.MISSING}
    kwargs = {}
    for key, value in values.items():
        if key in sections:
            section = sections[key]
            unknown = set(value) - {f.name for f in dataclasses.fields(section)}
            if unknown:
                raise ConfigError(f"config section {key!r} has unknown keys {sorted(unknown)}")
            kwargs[key] = section(**value)
        elif key == "name":
            kwargs[key] = value
        else:
            raise ConfigError(f"config has an unknown key {key!r}")
    return Config(**kwargs)
