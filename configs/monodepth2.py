"""Monodepth2 (ICCV 2019): the single-frame teacher and its pose network alone.

    python scripts/train.py --config=configs/monodepth2.py:synthetic --workdir=runs/monodepth2

Variants and their training time: see dynamic_depth.py. Published abs_rel: KITTI 0.115, Cityscapes 0.129. Ours: not run.
"""

from configs import dynamic_depth
from dd_jax.config import Config


def get_config(variant: str = "synthetic") -> Config:
    """The config of one variant of dynamic_depth.py without a student."""
    config = dynamic_depth.get_config(variant)
    config.name = "monodepth2"
    config.model.student = False
    config.domd.enabled = False
    config.loss.occlusion_rule = "min"
    config.optim.freeze_step = -1
    if config.optim.rate_on_freeze == "reset":  # for two training phases, each with its own decay; here there is one
        config.optim.decay_steps, config.optim.rate_on_freeze = 4 * config.optim.steps // 5, "keep"
    return config
