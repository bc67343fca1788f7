"""Weighting by mask size, and pose cycle consistency, against the published code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import LossConfig
from dd_jax.geometry.se3 import compose, invert_pose, pose_from_parameters
from dd_jax.losses.consistency import pose_cycle
from dd_jax.losses.mask_weight import mask_weights
from dd_jax.runtime import reduce

VARIANTS = {  # area, power
    "less.report": ("target", 1.0),
    "more.report": ("target", 1.0),
    "less.code": ("intersection", 0.5),
    "more.code": ("intersection", 1.0),
    "less.triple_linear": ("intersection", 1.0),
    "more.triple_sqrt": ("intersection", 0.5),
    "less.single_sqrt": ("target", 0.5),
}


@pytest.mark.golden("c06_auto_mask_weight")
def test_mask_weight(golden):
    masks = jnp.asarray(np.concatenate([golden[f"in.doj_mask{f}"] for f in ("-1", "", "+1")], axis=1) > 0.5)
    error, used = (jnp.asarray(golden[f"in.reprojection_{name}"][:, 0]) for name in ("loss", "mask"))
    for variant, (area, power) in VARIANTS.items():
        loss = LossConfig(mask_weight=variant.split(".")[0], mask_area=area, mask_power=power)
        weights = mask_weights(masks, loss)
        golden.check(f"out.weight.{variant}", weights)
        golden.check(f"out.loss.{variant}", reduce.masked_mean(error * weights[:, None, None], used, None))
    golden.check("out.loss.unweighted", reduce.masked_mean(error, used, None))
    for area, name in (("target", "single"), ("intersection", "triple")):
        golden.check(f"out.share_{name}", mask_weights(masks, LossConfig(mask_weight="more", mask_area=area)))


@pytest.mark.golden("c06_pose_cycle")
def test_pose_cycle(golden):
    def read(name):
        return {pair: jnp.asarray(golden[f"in.{name}.{pair}"][:, 0]) for pair in ("0_1", "1_0", "m1_0", "0_m1")}

    def pose_cycles(parameters):
        T = {}
        for pair in parameters["axisangle"]:
            matrix = pose_from_parameters(parameters["axisangle"][pair], parameters["translation"][pair])
            T[pair] = invert_pose(matrix) if "m1" in pair else matrix
        return jnp.stack([compose(T["m1_0"], T["0_m1"]), compose(T["0_1"], T["1_0"])], axis=1), T

    def summed(parameters):  # the reference sums over the batch
        cycles = pose_cycles(parameters)[0]
        return 0.1 * len(cycles) * pose_cycle(cycles, None)

    parameters = {name: read(name) for name in ("axisangle", "translation")}
    cycles, T = pose_cycles(parameters)
    for pair, matrix in T.items():
        golden.check(f"out.T.{pair}", matrix)
    for frame, name in enumerate(("bwd", "fwd")):
        each = [pose_cycle(cycles[b : b + 1, frame : frame + 1], None) for b in range(len(cycles))]
        golden.check(f"out.per_sample_{name}", jnp.stack(each))
    golden.check("out.loss_batch_mean", 0.1 * pose_cycle(cycles, None))
    value, gradient = jax.value_and_grad(summed)(parameters)
    golden.check("out.loss", value)
    for name, pairs in gradient.items():
        for pair, array in pairs.items():
            golden.check(f"out.grad.{name}.{pair}", array[:, None])
