"""Depth metrics against the published evaluation script ("disparity" convention) and validation loop ("depth")."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config.protocols import protocol
from dd_jax.evaluation.metrics import ERRORS, evaluate_image, summarize
from dd_jax.geometry.camera import disp_to_depth


def errors(result, region="all"):
    return [result[region].get(name, 0.0) for name in ERRORS]


def rounding(pixels, order=ERRORS):
    """Tolerance of errors over this number of pixels, because rounding moves pixels across the thresholds of a1, a2 and a3.

    One pixel, plus two in 100,000: float32 changes the ratios by about 1e-6, and few lie that close to a threshold.
    """
    return np.multiply.outer(1.5 / np.maximum(pixels, 1) + 2e-5, [name in ("a1", "a2", "a3") for name in order])


def rounding_of(results, region="all"):
    return np.stack([rounding(result[region]["pixels"]) for result in results])


@pytest.mark.golden("c09_eval_kitti", "c09_eval_cityscapes")
def test_evaluation(golden):
    named = protocol("eigen" if golden.stem.endswith("kitti") else "cityscapes")
    script = dataclasses.replace(named, resize="disparity", median="average")
    validation = dataclasses.replace(named, resize="depth", median="lower")
    depth = disp_to_depth(jnp.asarray(golden["in.disp"]), float(golden["in.min_depth"]), float(golden["in.max_depth"]))
    disp, masks = np.asarray(1 / depth), golden["in.doj_mask"][:, 0] > 0.5
    truths = [golden[f"in.gt_{i}"] for i in range(len(disp))]
    if named.crop == "cityscapes":  # the readers return the rows that the network gets, without the car's bonnet
        truths = [truth[:768] for truth in truths]
    golden.check("out.pred_disp", disp)

    results = [evaluate_image(d[0], truth, {}, script) for d, truth in zip(disp, truths, strict=True)]
    summary = summarize(results)
    golden.check("out.errors", [errors(result) for result in results], at_least=rounding_of(results))
    golden.check("out.mean_errors", errors(summary), at_least=rounding_of(results).mean(axis=0))
    golden.check("out.ratios", [result["scale"]["ratio"] for result in results])
    golden.check("out.ratio_med_std", [summary["scale"]["median"], summary["scale"]["relative_std"]])

    unscaled = [evaluate_image(d[0], truth, {}, script, factor=1.0) for d, truth in zip(disp, truths, strict=True)]
    golden.check("out.errors_no_median_scaling", [errors(result) for result in unscaled], at_least=rounding_of(unscaled))

    results = [
        evaluate_image(d[0], truth, {"dynamic": mask}, validation) for d, truth, mask in zip(disp, truths, masks, strict=True)
    ]
    golden.check("out.val.errors", [errors(result) for result in results], at_least=rounding_of(results))
    dynamic = [errors(result, "dynamic") for result in results]
    golden.check("out.val.doj_errors", dynamic, at_least=rounding_of(results, "dynamic"))
    golden.check("out.val.pixels_all_doj", [[result[name]["pixels"] for name in ("all", "dynamic")] for result in results])
    golden.leave_out("out.flip_post_process", "averaging with the flipped image is not part of this evaluation")
