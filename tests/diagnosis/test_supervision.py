import functools

import jax
import numpy as np
import pytest
import tiny
from fakes import FakeSource
from tqdm import tqdm

from dd_jax.diagnosis import supervision
from dd_jax.runtime import parallel


def shares(**sections):
    """Of two samples; in the second one nothing moves."""
    config, batch = tiny.config(**sections), tiny.batch(2)
    batch.images[1] = batch.images[1, 1]
    return jax.device_get(jax.jit(functools.partial(supervision.shares, config=config))(tiny.restored(config).state, batch))


def test_standing_camera_is_masked_almost_everywhere():
    """A source equal to the target has no error; a warp through any depth does no better."""
    found = shares(model={"initial_forward": 0.1})
    assert found.masked[1] > 0.95 > 0.8 > found.masked[0] > 0
    assert ((found.reliable >= 0) & (found.reliable < 1)).all()


def test_without_masks_every_pixel_trains():
    found = shares(loss={"automask": False, "motion_mask": False})
    np.testing.assert_array_equal(found.masked, 0)
    np.testing.assert_array_equal(found.reliable, 1)


def test_single_frame_system_has_the_auto_mask_only():
    found = shares(model={"student": False})
    assert found.reliable is None and found.masked.shape == (2,)


@pytest.mark.parametrize("student", [True, False])
def test_mean_over_samples_with_both_neighbours(monkeypatch, student):
    """Padding of the last batch does not count, nor does the first sample, which lacks its previous frame."""

    class Source(FakeSource):
        def gather(self, indices, num_frames):
            values = super().gather(indices, num_frames)
            values["exists"][:, 0] = indices > 0
            return values

    def known(state, batch):
        index = batch.images[:, 1, 0, 0, 0].astype(np.float32)
        return supervision.Shares(index / 10 if student else None, index / 20)

    monkeypatch.setattr(parallel, "compile_predict", lambda function, devices: known)
    config = tiny.config(eval={"batch_size": 4}, cost_volume={"static_probability": 0.3, "zero_pose_probability": 0.2})
    state, devices = tiny.restored(config).state, jax.devices()[:1]
    with tqdm(disable=True) as bar:
        found = supervision.measure(state, config, Source(6), range(6), devices, bar)
        assert supervision.measure(state, config, Source(6), [0], devices, bar) is None
    assert found["auto_masked"] == pytest.approx(0.15)  # of the indices 1 to 5
    assert found["reliable"] == (pytest.approx(0.3) if student else None)
    assert found["reliable_in_training"] == (pytest.approx(0.15) if student else None)
