"""Adaptive depth range against DynamicDepth's depth trackers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import CostVolumeConfig
from dd_jax.method import cost_volume


@pytest.mark.golden("c10_depth_bin_tracker")
def test_depth_range(golden):
    depths = golden["in.mono_depth"][:, :, 0]
    depth_range, after = jnp.asarray(golden["in.init"]), []
    update = jax.jit(
        lambda depth_range, depth: cost_volume.update_depth_range(
            depth_range, depth, CostVolumeConfig(), float(golden["in.min_depth"]), None
        )
    )
    for depth in depths:
        depth_range = update(depth_range, depth)
        after.append(np.asarray(depth_range))
    golden.check("out.f64.trackers", np.stack(after))
