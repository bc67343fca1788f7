"""Cost volume from given features against DynamicDepth's matching encoder; test_c03_matching.py checks the features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nhwc

from dd_jax.config import CostVolumeConfig
from dd_jax.method import cost_volume


@functools.partial(jax.jit, static_argnames="options")
def build(target, lookup, poses, present, holes, K, bins, options):
    config = CostVolumeConfig(**dict(options))
    return cost_volume.build(target, lookup, poses, present, holes, K, bins, config)


def options_of(arguments):
    occlusion = {"set_1": "set_one", "pool": "feature_pool"}
    return {
        "aggregate": "min" if arguments["cv_min"] else "mean",
        "occlusion": next((mode for flag, mode in occlusion.items() if arguments.get(flag)), "none"),
        "pool_radius": arguments.get("pool_r", 1),
        "pool_threshold": arguments.get("pool_th", 0.7),
    }


@pytest.mark.golden(
    "c03_matching_inverse_a",
    "c03_matching_large_feats",
    "c03_matching_linear_a",
    "c03_matching_linear_b",
    "c03_matching_two_lookups",
)
def test_cost_volume_parity(golden):
    limits = jnp.asarray([golden["in.min_depth"], golden["in.max_depth"]])
    bins = cost_volume.depth_bins(
        limits, CostVolumeConfig(bins=golden.meta["num_depth_bins"], binning=golden.meta["depth_binning"])
    )
    golden.check("out.depth_bins", bins)

    target, lookup = nhwc(golden["out.current_feats"]), nhwc(golden["out.lookup_feats"])
    # Our holes are an explicit map; the reference takes dark image pixels as holes, every fourth pixel by nearest neighbour.
    dark = (golden["in.lookups"].sum(axis=2) < 0.15)[:, :, ::4, ::4].astype(np.float32)

    for case in sorted({name.split(".")[1] for name in golden.names("out.*.cost_volume")}):
        arguments = golden.meta["case_kwargs"][case if case in golden.meta["case_kwargs"] else "pool"]
        poses, augmented = golden["in." + arguments["poses"]], golden["in." + arguments["aug_mask"]][:, :, 0]
        holes = dark if case == "pool_own_mask" else of_first_entries(dark)
        present = np.any(poses != 0, axis=(-1, -2))
        options = options_of(arguments)
        if case == "zero_pose_mean" and lookup.shape[1] > 1:
            options["occlusion"] = "none"  # the fixture's volume was not filled, although its arguments say so
        K = golden["in.K"][:, :3, :3]
        volume = build(target, lookup, poses, present, holes * (1 - augmented)[..., None], K, bins, tuple(options.items()))
        if options["aggregate"] == "min":
            volume = without_large_costs(volume, bins)
        golden.check(f"out.{case}.cost_volume", np.moveaxis(volume.costs, -1, 1))
        golden.check(f"out.{case}.missing_mask", np.moveaxis(~volume.observed, -1, 1))
        golden.check(f"out.{case}.confidence_mask", volume.confidence)
        golden.check(f"out.{case}.lowest_cost", volume.lowest, where=decided(volume))


def of_first_entries(maps):
    """The reference's choice of hole maps: all frames of sample b get the b-th map of the flattened (sample, frame) list."""
    batch, frames = maps.shape[:2]
    return np.repeat(maps.reshape(-1, 1, *maps.shape[2:])[:batch], frames, axis=1)


def without_large_costs(volume, bins):
    """The volume with costs of 1 and more marked as unobserved, as the reference does with "min"."""
    costs, observed = (jnp.moveaxis(x, -1, 0) for x in (volume.costs, volume.observed))
    return cost_volume.fill_unobserved(costs, observed & (costs < 1), bins)


def decided(volume):
    """Pixels whose cheapest bin does not depend on rounding (of equal costs, which are copies, the first bin is chosen).

    The maps are small, and enlarged maps repeat each pixel 16 times: two ambiguous pixels would exceed the tolerance.
    """
    costs = np.sort(volume.costs, axis=-1)
    gap = costs[..., 1] - costs[..., 0]
    return (gap > 1e-5) | (gap == 0)
