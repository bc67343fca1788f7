"""The whole experiment as nested typed dataclasses.

``configs/*.py`` return a ``Config``; any field is overridden on the command line (``--config.loss.smoothness=2e-3``).
``validation.py`` has the rules, which run before anything is compiled and name the flag to change.
"""

import dataclasses
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
    precision: str = "float32"  # in which networks compute: "float32" | "bfloat16"; parameters, losses and geometry: float32
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
    microbatches: int = 1  # parts of a device's batch that are computed one after another: less memory, gradients are averaged
    remat: str = "none"  # kept for the backward pass, the rest is computed twice: "none" = all | results of "convolutions" | of
    # residual and decoder "blocks"
    log_every: int = 50
    eval_every: int = 2_000  # also at the end; 0 = only at the end
    eval_frames: int = 0  # validation frames, evenly spread; 0 = all
    checkpoint_every: int = 1_000
    keep: int = 2  # newest checkpoints kept, besides the best on val
    init_from: str = ""  # trained system whose networks to start from: folder of a run or of model.save, or hf://owner/name
    init_encoders: str = ""  # ImageNet weights to start the encoders from: PyTorch files of ResNets, or hf://owner/name, with
    # commas between them; each fills the encoders of as many layers. FILE#DIGEST: only if its SHA-256 begins so


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
    object_masks: str = "native"  # for scores by region: as they are stored ("native") | at training size first ("network")
    scaling: str = "median"  # to metres: "median" (ratio, per image) | "given" (scale) | "camera_height" (above the road)
    scale: float = 1.0  # of "given": 1 = predictions are metres, 5.4 = stereo networks of Monodepth2's family
    camera_height: float = 1.65  # of "camera_height", in metres; KITTI's
    camera_pitch: float = 0.0  # likewise: degrees by which the camera is mounted to look down


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


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dict, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of :func:`to_dict`.

    Raises:
      ConfigError: a key that this version does not know, or a value of another type than its field.
    """
    sections = {f.name: f.default_factory for f in dataclasses.fields(Config) if f.default_factory is not dataclasses.MISSING}
    kwargs = {}
    for key, value in values.items():
        if key in sections:
            kwargs[key] = _section(key, sections[key], value)
        elif key == "name":
            kwargs[key] = _typed(key, str, value)
        else:
            raise ConfigError(f"config has an unknown key {key!r}")
    return Config(**kwargs)


def _section(key: str, section: type, values: Any) -> Any:
    types = {field.name: field.type for field in dataclasses.fields(section)}
    unknown = set(_typed(key, dict, values)) - set(types)
    if unknown:
        raise ConfigError(f"config section {key!r} has unknown keys {sorted(unknown)}")
    return section(**{name: _typed(f"{key}.{name}", types[name], value) for name, value in values.items()})


def _typed(where: str, kind: type, value: Any) -> Any:
    """The value; whole numbers are fine where others are wanted, and truth values are no numbers."""
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        raise ConfigError(f"config has {where}={value!r}, which should be of the type {kind.__name__}")
    return value
