"""A published DynamicDepth from its files to its prediction: imported, saved, loaded, asked."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_c11_end_to_end import FRAMES, batch_of

import dd_jax
from dd_jax import imports, saved
from dd_jax.config import Config


@pytest.mark.golden("c11_infer")
def test_an_imported_system_predicts_as_published_up_to_disentangling(golden, tmp_path):
    state_dicts = {net: golden.weights(net) for net in golden.meta["weights"]}
    batch = batch_of(golden.companion(golden.meta["inputs_file"]), FRAMES[:2])
    height, width = batch.images.shape[2:4]
    near, far = (golden.meta[f"{end}_depth_tracker"] for end in ("min", "max"))
    state_dicts["encoder"] |= {"height": np.array(height), "width": np.array(width)}
    state_dicts["encoder"] |= {"min_depth_bin": np.array(near), "max_depth_bin": np.array(far)}
    for net, state in state_dicts.items():
        save_file(state, tmp_path / f"{net}.safetensors")
    imported = imports.read([tmp_path], Config())
    assert {remark.split()[0] for remark in imported.remarks} == {"data.height", "data.width", "cost_volume.bins"}
    saved.write(tmp_path / "system", imported.restored)
    model = dd_jax.load(tmp_path / "system")

    assert model.size == (height, width) and model.config.cost_volume.bins == golden.meta["num_depth_bins"]
    found, _ = model.start(batch.replace(images=255 * batch.inputs, inputs=None))
    golden.check("out.cam_T_cam_-1", found.T_previous_from_target)
    golden.check("out.mono_disp_s0", disparity(found.teacher, model.config)[:, None])

    # What the corrected disentangling changes: 0.5 % of the disparity in the mean, 3.3 % at most (untrained weights).
    published = golden["out.disp_s0"][:, 0]
    difference = np.abs(disparity(found.student, model.config) / published - 1)
    assert difference.mean() < 0.01 and difference.max() < 0.05
    assert np.abs(disparity(found.teacher, model.config) / published - 1).mean() > 10 * difference.mean()  # no small part of it


def disparity(inverse_depth, config):
    """Sigmoid disparity, which the published networks say, of 1 / depth."""
    near, far = 1 / config.model.min_depth, 1 / config.model.max_depth
    return (np.asarray(inverse_depth) - far) / (near - far)
