"""DS-Depth (2023): ManyDepth with the flow of what moves on its own, in a second cost volume and a second look at the sources.

    python scripts/train.py --config=configs/ds_depth.py:synthetic --workdir=runs/ds_depth

Variants and their cost as in dynamic_depth.py. Published: KITTI abs_rel 0.095, Cityscapes 0.100. Ours on these two: not run.
"""

from configs import many_depth
from dd_jax.config import Config


def get_config(variant: str = "synthetic") -> Config:
    """The experiment of one variant of dynamic_depth.py as DS-Depth."""
    config = many_depth.get_config(variant)
    config.name = "ds_depth"
    config.ds.enabled = True
    config.loss.smoothness = 2e-4
    return config
