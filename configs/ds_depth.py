"""DS-Depth (TCSVT 2023): ManyDepth with residual 2-D flow, used in a second cost volume and a second view synthesis.

    python scripts/train.py --config=configs/ds_depth.py:synthetic --workdir=runs/ds_depth

Variants and their training time: see dynamic_depth.py. Published abs_rel: KITTI 0.095, Cityscapes 0.100. Ours: not run.
"""

from configs import many_depth
from dd_jax.config import Config


def get_config(variant: str = "synthetic") -> Config:
    """The config of one variant of dynamic_depth.py as DS-Depth."""
    config = many_depth.get_config(variant)
    config.name = "ds_depth"
    config.ds.enabled = True
    config.loss.smoothness = 2e-4
    return config
