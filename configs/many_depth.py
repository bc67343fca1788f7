"""ManyDepth (CVPR 2021): DynamicDepth without object masks, averaging costs and ignoring holes.

    python scripts/train.py --config=configs/many_depth.py:synthetic --workdir=runs/many_depth

Variants and their cost as in dynamic_depth.py. Published: KITTI abs_rel 0.098, Cityscapes 0.114. Ours on these two: not run.
"""

from configs import dynamic_depth
from dd_jax.config import Config


def get_config(variant: str = "synthetic") -> Config:
    """The experiment of one variant of dynamic_depth.py with everything object-aware taken away."""
    config = dynamic_depth.get_config(variant)
    config.name = "many_depth"
    config.domd.enabled = False
    config.cost_volume.occlusion = "none"
    config.cost_volume.aggregate = "mean"
    config.loss.occlusion_rule = "min"
    return config
