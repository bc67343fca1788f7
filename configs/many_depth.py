"""ManyDepth (CVPR 2021): DynamicDepth without object masks and holes, with averaged costs.

    python scripts/train.py --config=configs/many_depth.py:synthetic --workdir=runs/many_depth

Variants and their training time: see dynamic_depth.py. Published abs_rel: KITTI 0.098, Cityscapes 0.114. Ours: not run.
"""

from configs import dynamic_depth
from dd_jax.config import Config


def get_config(variant: str = "synthetic") -> Config:
    """The config of one variant of dynamic_depth.py without everything object-aware."""
    config = dynamic_depth.get_config(variant)
    config.name = "many_depth"
    config.domd.enabled = False
    config.cost_volume.occlusion = "none"
    config.cost_volume.aggregate = "mean"
    config.loss.occlusion_rule = "min"
    return config
