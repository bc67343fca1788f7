"""SC-DepthV3 (TPAMI 2023): a single-frame network with geometric consistency between frames and supervision by prior depth.

    python scripts/train.py --config=configs/sc_depth_v3.py:synthetic --workdir=runs/sc_depth_v3

Variants and their training time: see dynamic_depth.py. The data set must contain prior depth (``prior_02`` or similar; rendered
drives have it). Published abs_rel: KITTI 0.118. Ours: not run.
"""

from configs import monodepth2
from dd_jax.config import Config


def get_config(variant: str = "synthetic") -> Config:
    """The config of one variant of dynamic_depth.py with SC-DepthV3's losses."""
    config = monodepth2.get_config(variant)
    config.name = "sc_depth_v3"
    config.sc.enabled = True
    config.data.priors = "files"
    config.model.min_depth = config.cost_volume.min_depth = 1 / 10.01  # inverse depth in 0.01 + [0, 10]
    config.loss.smoothness = 0.0
    config.loss.normal_l1 = config.loss.normal_rank = 0.1
    config.loss.normal_prior = "file"
    config.augment.jitter, config.augment.zoom = 0.0, 1.15
    if variant == "kitti":  # 100 epochs of 1,000 steps
        config.data.height, config.data.width, config.data.batch_size = 256, 832, 4
        config.optim.steps, config.optim.decay_steps = 100_000, 0
    config.eval.resize = "depth"
    return config
