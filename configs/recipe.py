"""Training from scratch in stages, each of which starts from the networks of the previous one (docs/training.md says why).

    python scripts/train_stages.py --recipe=configs/recipe.py:rendered --workdir=runs/rendered \\
        --data_root=data/large --render=large

``VARIANT`` or ``VARIANT/SYSTEM``: ``rendered`` is for rendered drives of 128x416; ``demo`` (``make demo``) is a short last stage,
with teacher and pose network of the bundled model; ``real`` continues the bundled model on recorded drives
(docs/real_streets.md); ``tiny`` is for tests. The systems are those of :data:`SYSTEMS`, many_depth by default; dynamic_depth
continues it, monodepth2 ends with the teacher.
"""

import dataclasses

from configs import ds_depth, dynamic_depth, many_depth, monodepth2
from dd_jax.config import Config, ConfigError


@dataclasses.dataclass(frozen=True)
class Size:
    """Images, batch and optimisation of one stage."""

    height: int
    width: int
    frame_step: int
    batch_size: int
    steps: int
    learning_rate: float


@dataclasses.dataclass(frozen=True)
class Variant:
    """Networks, which are the same in all stages, and the size of each stage."""

    width: int
    bins: int
    log_every: int
    checkpoint_every: int
    eval_frames: int
    stages: dict[str, Size]
    start: str = ""  # trained model from which the first stage starts
    object_depth: str = "ground"  # domd.depth of DynamicDepth


VARIANTS = {
    "rendered": Variant(
        width=24,
        bins=64,
        log_every=20,
        checkpoint_every=250,
        eval_frames=60,
        stages={
            "poses": Size(64, 96, 1, 12, 1_000, 5e-4),
            "teacher": Size(64, 192, 2, 8, 2_000, 4e-4),
            "teacher_large": Size(128, 416, 2, 4, 2_000, 3e-4),
            "student": Size(128, 416, 2, 4, 3_400, 4e-4),
            "dynamic": Size(128, 416, 2, 4, 300, 4e-4),
        },
    ),
    "demo": Variant(
        width=24,
        bins=64,
        log_every=20,
        checkpoint_every=100,
        eval_frames=32,
        stages={"student": Size(128, 416, 2, 4, 500, 4e-4)},
        start="rendered",
    ),
    "real": Variant(
        width=24,
        bins=64,
        log_every=20,
        checkpoint_every=100,
        eval_frames=0,
        stages={
            "teacher_large": Size(128, 416, 1, 4, 600, 2e-4),
            "student": Size(128, 416, 1, 4, 600, 2e-4),
        },
        start="rendered",
        object_depth="ground_or_border",
    ),
    "tiny": Variant(
        width=8,
        bins=8,
        log_every=1,
        checkpoint_every=2,
        eval_frames=2,
        stages={
            "poses": Size(64, 96, 1, 2, 3, 1e-3),
            "teacher": Size(64, 96, 2, 2, 2, 1e-3),
            "teacher_large": Size(64, 128, 2, 2, 2, 1e-3),
            "student": Size(64, 128, 2, 2, 3, 1e-3),
            "dynamic": Size(64, 128, 2, 2, 2, 1e-3),
        },
    ),
}

SYSTEMS = {
    "many_depth": many_depth.get_config,
    "dynamic_depth": dynamic_depth.get_config,
    "ds_depth": ds_depth.get_config,
    "monodepth2": None,
}
"""Config of the student; None: no student."""


def get_stages(name: str = "rendered") -> list[tuple[str, Config]]:
    """Name and config of each stage, in order; the data set and the model to start from are left open.

    Raises:
      ConfigError: no such variant or system.
    """
    key, _, system = name.partition("/")
    system = system or "many_depth"
    if key not in VARIANTS or system not in SYSTEMS:
        raise ConfigError(
            f"configs/recipe.py has no {name!r}: write VARIANT or VARIANT/SYSTEM, with one of {', '.join(VARIANTS)} "
            f"and one of {', '.join(SYSTEMS)}"
        )
    variant = VARIANTS[key]
    stages = {stage: _teacher(stage == "teacher_large") for stage in variant.stages if stage not in ("student", "dynamic")}
    if SYSTEMS[system] is not None:
        stages["student"] = _student(SYSTEMS[system]("synthetic"))
    if system == "dynamic_depth" and "dynamic" in variant.stages:  # DynamicDepth continues a ManyDepth, as published
        stages |= {"student": _student(many_depth.get_config("synthetic")), "dynamic": stages["student"]}
        stages["dynamic"].train.init_student = "fresh"
    for stage, config in stages.items():
        _set_size(config, variant, variant.stages[stage])
    if not stages:
        raise ConfigError(f"configs/recipe.py:{name} has no stage: {key} trains a student only, which {system} has not")
    next(iter(stages.values())).train.init_from = variant.start
    return list(stages.items())


def _teacher(large: bool) -> Config:
    """Teacher and pose network alone."""
    config = monodepth2.get_config("synthetic")
    config.loss.automask = large  # it drops the pixels of slow and of standing frames, from which speed is learnt
    config.loss.automask_parallax = 0.05 if large else 0.0
    config.model.pose_downscale = 2 if large else 1
    return config


def _student(config: Config) -> Config:
    """A student that starts as its teacher, with teacher and pose network fixed."""
    config.model.pose_downscale = 2
    config.train.init_student = "teacher"
    volume, frozen = config.cost_volume, not config.ds.enabled  # the flow network of DS-Depth trains with the teacher
    volume.binning, volume.features, volume.margin, volume.temperature = "log", "colours", 1, 0.03
    volume.window = 7 if frozen else 1  # DS-Depth's costs have a window already, that of SSIM
    volume.static_probability = volume.zero_pose_probability = 0.1
    config.loss.consistency, config.loss.consistency_of = 0.3, "log"
    config.model.pose_refinement = 5 if frozen else 0
    config.optim.freeze_step = 0 if frozen else -1
    return config


def _set_size(config: Config, variant: Variant, size: Size) -> None:
    data, optim, train = config.data, config.optim, config.train
    data.height, data.width, data.frame_step, data.batch_size = size.height, size.width, size.frame_step, size.batch_size
    config.model.width, config.model.translation_scale, config.loss.pyramid = variant.width, 0.1, True
    config.cost_volume.bins, config.cost_volume.range_percentile = variant.bins, 1.0
    config.domd.depth = variant.object_depth if config.domd.enabled else "teacher"
    optim.steps, optim.learning_rate = size.steps, size.learning_rate
    optim.decay_steps, optim.rate_on_freeze = max(1, 17 * size.steps // 20), "keep"
    train.log_every, train.checkpoint_every, train.eval_frames = variant.log_every, variant.checkpoint_every, variant.eval_frames
    train.eval_every, train.keep = 0, 1
