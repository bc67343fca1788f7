"""All options as nested typed dataclasses.

``configs/*.py`` return a ``Config``; any field can be overridden on the command line (``--config.loss.smoothness=2e-3``).
``rules.py`` validates a config before anything is compiled.
"""

import dataclasses
from typing import Any


class ConfigError(ValueError):
    """Invalid input; the message says what is wrong and which flag to change.

    It may quote what a damaged file holds, so it is made one line of text, of at most :data:`LONGEST_MESSAGE` characters.
    """

    def __init__(self, message: str):
        shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
        half = LONGEST_MESSAGE // 2 - 5
        super().__init__(shown if len(shown) <= LONGEST_MESSAGE else f"{shown[:half]} [...] {shown[-half:]}")


LONGEST_MESSAGE = 4000


@dataclasses.dataclass
class DataConfig:
    source: str = "kitti"  # "kitti" (raw layout, also synthetic drives) | "cityscapes" | "folder" | "tfds" (a TFDS store)
    root: str = ""  # folder of the data set
    split_dir: str = ""  # folder with {train,val,test}_files.txt; "" = ROOT/splits
    frame_step: int = 1  # k: the neighbours of frame t are t-k and t+k; Cityscapes: t-2k and t+2k of its 17 Hz recording
    height: int = 192  # training size, multiples of 32
    width: int = 640
    intrinsics: str = "calib"  # "calib" (true, per drive) | "nominal" (the constant KITTI matrix of Monodepth2)
    resize: str = "area"  # "area" (OpenCV) | "lanczos" (PIL, as the published code)
    masks: str = "files"  # object masks: "files" (missing file = no object) | "none"
    priors: str = "none"  # prior inverse depth by another network: "files" (one per target) | "none"
    batch_size: int = 12  # global, over all devices
    threads: int = 2  # decoding threads per process
    cache_dir: str = ""  # frames at training size, created on first use; "" = ROOT/.cache
    max_unreadable: int = 10  # unreadable frames skipped per split before the run stops
    split: str = ""  # KITTI: "eigen_zhou" | "eigen_full" | "benchmark" (test: eigen_benchmark) | "odom" | "" (lists of split_dir)
    ground_truth_file: str = ""  # KITTI: .npz with the depth maps of the test split, for eval.ground_truth=file
    allow_pickle: bool = False  # True: trust a ground_truth_file with pickled objects, which may run code
    layout: str = ""  # Cityscapes train and val: "triplets" (preprocessed) | "sequence" (original) | "" = triplets if any
    mask_format: str = "binary"  # mask files: "binary" (nonzero = object) | "cityscapes" (label ids) | "cityscapes_train" (train
    # ids) | "coco_panoptic" (colours, with panoptic.json in the same folder)


@dataclasses.dataclass
class AugmentConfig:
    flip: float = 0.5  # probability of a horizontal flip (principal point mirrored)
    jitter: float = 0.5  # probability of a colour jitter, one draw per triplet
    brightness: float = 0.2  # factor in 1 +- this value; same for contrast and saturation
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.1  # shift in +- this value, as a fraction of a full turn
    zoom: float = 1.0  # largest factor of random zoom and crop, drawn separately for x and y; 1 = none, SC-DepthV3: 1.15


@dataclasses.dataclass
class ModelConfig:
    student: bool = True  # False: only the single-frame teacher (Monodepth2)
    student_layers: int = 18  # ResNet depth of the student encoder: 18 | 34 | 50; teacher and pose always have 18
    width: int = 64  # channels of the first ResNet stage, in all encoders; 64 = the published networks
    precision: str = "float32"  # of the networks: "float32" | "bfloat16"; parameters, losses and geometry are float32
    flow: bool = False  # network for the residual 3-D motion of every point, in training only
    flow_scale: float = 0.1  # factor on its output, in addition to the factor 0.1 in the network
    min_depth: float = 0.1
    max_depth: float = 100.0
    initial_depth: float = 0.0  # of untrained networks, which fixes the free scale; 0 = PyTorch's default bias, about 0.2
    rotation_scale: float = 0.01  # factor on the axis-angle of the pose network; 0.01 in published checkpoints
    translation_scale: float = 0.01  # same for the translation
    pose_refinement: int = 0  # poses refined by image alignment with the frozen teacher's depth: iterations per size
    pose_downscale: int = 1  # factor by which images are reduced for the pose network: large rotations need small images
    initial_forward: float = 0.0  # forward motion per frame of the untrained pose network, in the unit of initial_depth


@dataclasses.dataclass
class CostVolumeConfig:
    bins: int = 96
    binning: str = "linear"  # "linear" | "inverse" | "log"
    min_depth: float = 0.1  # initial adaptive depth range
    max_depth: float = 10.0
    tracker_momentum: float = 0.99
    range_percentile: float = 0.0  # of an image's depths, left out at both ends of its range; 0 = none (ManyDepth)
    margin: int = 2  # matches closer than this many feature pixels to a border do not count; 1 for images below 100 rows
    features: str = "learned"  # what is matched: "learned" (ManyDepth) | "colours" (normalised, known without training)
    window: int = 1  # costs are means over a square of so many feature pixels; 5 to 9 for colours
    temperature: float = 0.0  # the student reads softmax(-costs / temperature) over the bins; 0: the costs (ManyDepth)
    aggregate: str = "min"  # over lookup frames: "min" | "mean"
    occlusion: str = "feature_pool"  # treatment of holes in the lookup frame: "none" | "set_one" | "feature_pool" | "cost_fill"
    pool_radius: int = 1
    pool_threshold: float = 0.7
    static_probability: float = 0.25  # matching augmentation: lookup frame = target frame
    zero_pose_probability: float = 0.25  # matching augmentation: lookup frame missing
    future_frame: bool = False  # match with the next frame too, also in evaluation: for recorded video


@dataclasses.dataclass
class DomdConfig:
    enabled: bool = True
    depth: str = "teacher"  # of objects: the "teacher"'s (DynamicDepth) | that of the "ground" below them | "ground_or_border":
    # of objects that the lower border cuts, that at the border
    upscale: int = 3  # sub-pixel density of the forward splat
    exclude_from_loss: bool = False  # disentangle objects in the lookup frame only


@dataclasses.dataclass
class LossConfig:
    ssim: float = 0.85  # weight of SSIM in the photometric error, the rest is L1
    smoothness: float = 1e-3
    scales: int = 4  # decoder scales that are trained, from the finest on
    pyramid: bool = False  # compare every scale with images of its own size; False: all at full size (Monodepth2)
    pyramid_distillation: float = 0.0  # coarse disparities compared with the finest; DS-Depth: 0.001
    automask: bool = True  # teacher: drop pixels with a lower error for an unwarped source
    automask_noise: float = 1e-5  # breaks ties between equal errors
    automask_parallax: float = 0.0  # only where the predicted camera moves more than this share of the harmonic mean depth: the
    # mask hides what moves less than predicted, so that slow and standing frames would not correct their pose; 0 = everywhere
    source_reduce: str = "min"  # over source frames: "min" | "mean"
    occlusion_rule: str = "switch"  # holes of a source: "switch" | "union" | "min" (= ignore)
    motion_mask: bool = True  # student: photometric loss only where matching is confident and agrees with the teacher
    consistency: float = 1.0  # weight of |student - teacher| on unreliable pixels
    consistency_of: str = "depth"  # "depth" (ManyDepth; grows with the free scale) | "log" (of the logarithms of depth)
    dynamic_cycle: float = 0.0  # weight of |teacher - student| on object pixels
    normal_l1: float = 0.0  # L1 between normals of the student and of the prior
    normal_rank: float = 0.0  # ranking of normals across edges
    normal_prior: str = "teacher"  # prior of both: depth of the "teacher" | of a "file" (data.priors)
    normal_anchors: int = 4096  # edge pixels drawn per image and kind of edge
    pose_cycle: float = 0.0  # forward and backward pose compose to the identity
    mask_weight: str = "off"  # weight of samples with many object pixels in the photometric loss: "off" (equal) | "less" | "more"
    mask_area: str = "target"  # object pixels: "target" (of the target frame) | "intersection" (of all frames)
    mask_power: float = 1.0  # exponent on the weight; 0.5 in the published code


@dataclasses.dataclass
class ScDepthConfig:
    """SC-DepthV3: single-frame depth with geometry consistency between frames; replaces the losses of the teacher."""

    enabled: bool = False
    ssim: float = 0.85  # weight of SSIM (7x7) in the photometric error
    geometry: float = 0.1  # consistency of the depths of two frames
    depth_rank: float = 0.1  # depth ranking as in the prior, mainly where rigid motion explains little
    auto_mask: bool = True  # drop pixels with a lower error for the unwarped frame
    weight_mask: bool = True  # lower photometric weight where the depths of two frames disagree
    source_min: bool = True  # minimum over source frames per pixel; False: both


@dataclasses.dataclass
class DsDepthConfig:
    """DS-Depth: ManyDepth with a network for the residual flow, which warps a second, dynamic cost volume."""

    enabled: bool = False
    flow_smoothness: float = 1e-4
    cost_ssim: float = 0.4  # weight of SSIM in matching costs, the rest is L1
    fusion: str = "both"  # of the two volumes: "min" | "conv" | "both"
    own_mask: bool = True  # confidence of the dynamic volume; False: that of the static one


@dataclasses.dataclass
class OptimConfig:
    steps: int = 66_000
    learning_rate: float = 1e-4
    decay_steps: int = 50_000  # interval in steps after which the rate is multiplied by decay_factor; 0 = never
    decay_factor: float = 0.1
    freeze_step: int = 50_000  # number of steps after which teacher and pose are fixed; -1 = never
    rate_on_freeze: str = "keep"  # at freeze_step: "keep" (the schedule continues) | "reset" (Adam and schedule restart)
    max_nonfinite: int = 20  # abort after more than so many non-finite steps in a row; each is skipped and reported


@dataclasses.dataclass
class TrainConfig:
    seed: int = 0
    backend: str = "pmap"  # "pmap" | "jit"
    microbatches: int = 1  # parts of a device's batch computed one after another: less memory, gradients are averaged
    remat: str = "none"  # kept for the backward pass, the rest is recomputed: "none" = all | outputs of "convolutions" | of
    # residual and decoder "blocks"
    log_every: int = 50
    eval_every: int = 2_000  # steps between validations, also at the end; 0 = only at the end
    eval_frames: int = 0  # validation frames, evenly spaced; 0 = all
    checkpoint_every: int = 1_000
    keep: int = 2  # newest checkpoints kept, in addition to the best on val
    skip_damaged: bool = False  # continue from the newest whole checkpoint; damaged ones are moved to WORKDIR/damaged
    other_data: bool = False  # continue although the training data are not those that the checkpoint was trained on
    init_from: str = ""  # trained model to start from: folder of a run or of model.save, or hf://owner/name
    init_student: str = "fresh"  # "fresh" (where init_from has none) | "teacher" (always a copy of it, blind to the lookup frame)
    init_encoders: str = ""  # ImageNet weights for the encoders: PyTorch files of ResNets or hf://owner/name, separated by
    # commas; each initialises the encoders with its number of layers. FILE#DIGEST: checks the start of the SHA-256


@dataclasses.dataclass
class EvalConfig:
    batch_size: int = 8
    min_depth: float = 1e-3
    max_depth: float = 80.0
    crop: str = "eigen"  # "eigen" (Garg crop) | "none" | "cityscapes"
    resize: str = "disparity"  # quantity resized to the ground truth: "disparity" | "depth"
    median: str = "average"  # for an even count: "average" | "lower"
    ground_truth: str = "velodyne"  # "velodyne" (scan) | "annotated" (depth PNG; exact if synthetic) | "file" (of data)
    far_truth: bool = False  # score ground truth beyond max_depth too; predictions are clamped anyway
    object_masks: str = "native"  # for scores by region: as stored ("native") | resized to training size first ("network")
    scaling: str = "median"  # to metres: "median" (ratio per image) | "given" (scale) | "none" (they are) | "camera_height"
    scale: float = 1.0  # for "given": 1 = predictions are in metres, 5.4 = stereo networks of Monodepth2
    camera_height: float = 1.65  # for "camera_height", in metres; default: KITTI
    camera_pitch: float = 0.0  # for "camera_height": degrees by which the camera looks down


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
    """Nested dict for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of :func:`to_dict`.

    Raises:
      ConfigError: an unknown key, or a value of the wrong type.
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
    """The value; integers are valid floats, booleans are not numbers."""
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        raise ConfigError(f"config has {where}={value!r}, which must be of type {kind.__name__}")
    return value
