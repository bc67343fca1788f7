"""A folder of real KITTI frames with laser depth, from check to prediction.

``KITTI_SAMPLE=DIR`` names it: raw layout with train, val and test lists in ``splits/``, annotated depth, no object masks. KITTI
is not distributed with this project; without the folder these tests are skipped.
"""

import os
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import tiny

from dd_jax.config import Config, protocols
from dd_jax.data.kitti import raw
from dd_jax.evaluation import metrics
from dd_jax.evaluation.evaluate import evaluate_checkpoint, evaluate_predictions
from dd_jax.inference import api, inputs
from dd_jax.inference.predict import predict
from dd_jax.prepare.check import check
from dd_jax.training.train import train

SAMPLE = os.environ.get("KITTI_SAMPLE", "")
DRIVE = "2011_09_26/2011_09_26_drive_0060_sync"
pytestmark = pytest.mark.skipif(not SAMPLE, reason="KITTI_SAMPLE names no folder of real KITTI frames")


def make_config(steps: int, cache: Path) -> Config:
    """The folder itself stays as it is: frames of training size go to ``cache``."""
    config = tiny.config(
        data={"root": SAMPLE, "masks": "none", "cache_dir": str(cache)},
        optim={"steps": steps, "freeze_step": -1},
        train={"log_every": 1, "eval_every": 0, "checkpoint_every": 2},
    )
    config.domd.enabled, config.cost_volume.occlusion, config.loss.occlusion_rule = False, "none", "min"
    config.eval = protocols.protocol("eigen_improved")
    config.eval.batch_size = 1
    return config


def annotated() -> list[np.ndarray]:
    """True depth of each test frame in metres, 0 where unknown, (H, W); read without the project's code."""
    depths = []
    for line in Path(SAMPLE, "splits/test_files.txt").read_text().splitlines():
        drive, frame, _ = line.split()
        path = Path(SAMPLE, drive, "proj_depth/groundtruth/image_02", f"{int(frame):010d}.png")
        depths.append(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 256.0)
    return depths


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """The runs share compiled functions."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two steps, continued for two more; and four without interruption."""
    folder = tmp_path_factory.mktemp("real")
    device = jax.devices()[:1]
    train(make_config(2, folder), folder / "run", device)
    continued = train(make_config(4, folder), folder / "run", device)
    return folder / "run", continued, train(make_config(4, folder), folder / "uninterrupted", device)


def test_data_set_is_good(tmp_path):
    report = check(make_config(1, tmp_path), progress=False)
    assert report.problems == [] and report.statistics["samples"] == {"train": 116, "val": 22, "test": 7}


def test_continued_run_equals_uninterrupted_run(trained):
    _, continued, uninterrupted = trained
    assert int(continued.step) == 4
    jax.tree.map(np.testing.assert_array_equal, continued, uninterrupted)


def test_evaluation_of_checkpoint_covers_every_test_frame(trained):
    results = evaluate_checkpoint(trained[0])
    assert len(results.images) == 7
    assert all(np.isfinite(results.metrics[name]["all"]["abs_rel"]) for name in ("student", "teacher", "constant", "mean_map"))


def test_frames_predicted_in_their_own_size(trained, tmp_path):
    source = inputs.open_source([str(Path(SAMPLE, DRIVE))], chosen=slice(3))
    predict(api.load(trained[0]), source, tmp_path / "out", formats=("npy",), progress=False)
    depths = [np.load(path) for path in sorted((tmp_path / "out").rglob("*.npy"))]
    assert len(depths) == 3 and all(depth.shape == (375, 1242) and (depth > 0).all() for depth in depths)


def test_projected_scan_equals_the_annotated_depth():
    """Another program projected the scans of this drive, of which two are in the folder."""
    calibration = [Path(SAMPLE, "2011_09_26", name).read_text() for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt")]
    scans = sorted(Path(SAMPLE, DRIVE, "velodyne_points/data").glob("*.bin"))
    assert scans
    for scan in scans:
        png = Path(SAMPLE, DRIVE, "proj_depth/groundtruth/image_02", f"{scan.stem}.png")
        ours = raw.depth_map(*calibration, raw.read_scan(scan))
        np.testing.assert_allclose(ours, cv2.imread(str(png), cv2.IMREAD_UNCHANGED) / 256.0, atol=1 / 256)


def test_seven_metrics_and_pixel_counts_equal_a_plain_evaluation(tmp_path):
    """Median scaling per image, predictions from 0.001 to 80 m, every pixel with truth, means over images."""
    rng = np.random.default_rng(0)
    predictions, rows, pixels = [], [], 0
    for truth in annotated():
        predicted = cv2.resize(rng.uniform(2, 60, (6, 20)), truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
        predictions.append(predicted.astype(np.float32))
        t, p = truth[truth > 0], predicted.astype(np.float32)[truth > 0].astype(float)
        p = np.clip(p * np.median(t) / np.median(p), 1e-3, 80)
        ratio = np.maximum(t / p, p / t)
        squares = np.sqrt(np.mean((t - p) ** 2)), np.sqrt(np.mean((np.log(t) - np.log(p)) ** 2))
        shares = [np.mean(ratio < 1.25**k) for k in (1, 2, 3)]
        rows.append([np.mean(abs(t - p) / t), np.mean((t - p) ** 2 / t), *squares, *shares])
        pixels += t.size
    np.save(tmp_path / "depth.npy", np.stack(predictions))
    found = evaluate_predictions(make_config(1, tmp_path), tmp_path / "depth.npy").metrics["predictions"]["all"]
    assert found["pixels"] == pixels and found["images"] == len(rows) == 7
    np.testing.assert_allclose([found[name] for name in metrics.ERRORS], np.mean(rows, axis=0), rtol=2e-5)
