"""Depth metrics against the published evaluation script ("disparity" convention) and validation loop ("depth")."""

import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import EvalConfig
from dd_jax.geometry.camera import disp_to_depth
from dd_jax.metrics import ERRORS, depth_at, depth_errors, evaluate_image, field_of_view, summarize, valid_pixels


def errors(result, region="all"):
    return [result[region].get(name, 0.0) for name in ERRORS]


@pytest.mark.golden("c09_eval_kitti", "c09_eval_cityscapes")
def test_evaluation(golden):
    crop = "eigen" if golden.stem.endswith("kitti") else "cityscapes"
    script = EvalConfig(crop=crop)
    validation = EvalConfig(crop=crop, resize="depth", median="lower")
    depth = disp_to_depth(jnp.asarray(golden["in.disp"]), float(golden["in.min_depth"]), float(golden["in.max_depth"]))
    disp, masks = np.asarray(1 / depth), golden["in.doj_mask"][:, 0] > 0.5
    truths = [golden[f"in.gt_{i}"] for i in range(len(disp))]
    golden.check("out.pred_disp", disp)

    results = [evaluate_image(d[0], truth, {}, script) for d, truth in zip(disp, truths, strict=True)]
    summary = summarize(results)
    golden.check("out.errors", [errors(result) for result in results])
    golden.check("out.mean_errors", errors(summary))
    golden.check("out.ratios", [result["scale"]["ratio"] for result in results])
    golden.check("out.ratio_med_std", [summary["scale"]["median"], summary["scale"]["relative_std"]])

    rows = []
    for d, truth in zip(disp, truths, strict=True):
        seen = field_of_view(truth, script)
        valid = valid_pixels(seen, script)
        prediction = np.clip(depth_at(d[0], seen.shape, script), script.min_depth, script.max_depth)
        rows.append(list(depth_errors(seen[valid], prediction[valid]).values()))
    golden.check("out.errors_no_median_scaling", rows)

    results = [
        evaluate_image(d[0], truth, {"dynamic": mask}, validation) for d, truth, mask in zip(disp, truths, masks, strict=True)
    ]
    golden.check("out.val.errors", [errors(result) for result in results])
    golden.check("out.val.doj_errors", [errors(result, "dynamic") for result in results])
    golden.check("out.val.pixels_all_doj", [[result[name]["pixels"] for name in ("all", "dynamic")] for result in results])
    golden.leave_out("out.flip_post_process", "averaging with the flipped image is not part of this evaluation")
