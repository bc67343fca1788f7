"""Cost volume from given features, against DynamicDepth's matching encoder (whose features another test checks)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nhwc

from dd_jax import cost_volume
from dd_jax.config import CostVolumeConfig


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
    # Our holes are an explicit map; the reference finds them by darkness in the picture, nearest pixel of every fourth.
    dark = (golden["in.lookups"].sum(axis=2) < 0.15)[:, :, ::4, ::4].astype(np.float32)

    for case in sorted({name.split(".")[1] for name in golden.names("out.*.cost_volume")}):
        arguments = golden.meta["case_kwargs"][case if case in golden.meta["case_kwargs"] else "pool"]
        if lookup.shape[1] > 1 and arguments.get("pool") and case != "pool_own_mask":
            for array in ("cost_volume", "missing_mask", "confidence_mask", "lowest_cost"):
                golden.leave_out(
                    f"out.{case}.{array}", "uses the occlusion map of another frame (J12); pool_own_mask is compared"
                )
            continue
        poses, augmented = golden["in." + arguments["poses"]], golden["in." + arguments["aug_mask"]][:, :, 0]
        present = np.any(poses != 0, axis=(-1, -2))
        options = options_of(arguments)
        K = golden["in.K"][:, :3, :3]
        volume = build(target, lookup, poses, present, dark * (1 - augmented)[..., None], K, bins, tuple(options.items()))

        costs, observed = np.asarray(volume.costs), np.asarray(volume.observed)
        # With "min" the reference takes costs of 1 and more for missing (J14): compare entries and pixels without any.
        large = observed & (costs >= 1.0 - 1e-4) & (options["aggregate"] == "min")
        clean = ~np.any(large, axis=-1)
        entries = np.moveaxis(np.where(observed, ~large, clean[..., None]), -1, 1)
        golden.check(f"out.{case}.cost_volume", np.moveaxis(costs, -1, 1), where=entries)
        golden.check(f"out.{case}.missing_mask", np.moveaxis(~observed, -1, 1), where=np.moveaxis(~large, -1, 1))
        golden.check(f"out.{case}.confidence_mask", volume.confidence, where=clean)
        # Elsewhere the reference's cheapest bin is decided if one smaller cost is the lowest, and not the only one (it would
        # be copied to the missing bins).
        smaller = np.sort(np.where(observed & ~large, costs, np.inf), axis=-1)
        decided = (smaller[..., 1] > smaller[..., 0] + 1e-5) & np.isfinite(smaller[..., 1])
        golden.check(f"out.{case}.lowest_cost", volume.lowest, where=clean | decided)
