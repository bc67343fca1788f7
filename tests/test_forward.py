import dataclasses

import jax
import numpy as np
import tiny

from dd_jax.forward import direct_poses, forward, predict_poses
from dd_jax.networks.layers import Draws
from dd_jax.networks.model import Model


def untrained(config):
    model = Model(config, Draws(0))
    model.eval()
    return model, jax.numpy.asarray(tiny.batch(2).images, jax.numpy.float32) / 255


def test_untrained_systems_drive_ahead_whichever_frame_is_asked_for_first():
    """The previous camera is behind: points are farther from it, and nearer to the next one."""
    ahead = {"initial_forward": 0.2, "translation_scale": 1e-6}
    model, inputs = untrained(tiny.config(model=ahead))
    np.testing.assert_allclose(predict_poses(model, inputs)[:, :, 2, 3], [[0.2, -0.2]] * 2, atol=2e-3)  # turned a little

    config = tiny.config(sc={"enabled": True}, model=ahead | {"student": False})
    model, inputs = untrained(config)
    for reverse, ways in ((False, [0.2, -0.2]), (True, [-0.2, 0.2])):
        poses = direct_poses(model, inputs, config.model, reverse)
        still = direct_poses(model, inputs, dataclasses.replace(config.model, initial_forward=0.0), reverse)
        np.testing.assert_allclose(poses[:, :, 2, 3] - still[:, :, 2, 3], [ways] * 2, atol=1e-6)
        np.testing.assert_array_equal(poses[..., :3], still[..., :3])


def test_the_next_frame_is_matched_with_where_there_is_one():
    config = tiny.config(cost_volume={"future_frame": True})
    model, inputs = untrained(config)
    batch = tiny.batch(2).replace(images=inputs, inputs=inputs)
    limits = jax.numpy.array([0.4, 2.4])

    @jax.jit
    def volume(batch):
        return forward(model, batch, limits, config, train=False).student.volume

    alone = tiny.config()
    past = jax.jit(lambda batch: forward(model, batch, limits, alone, train=False).student.volume)(batch)
    last = volume(batch.replace(exists=batch.exists & np.array([True, True, False])))
    np.testing.assert_array_equal(last.observed, past.observed)
    np.testing.assert_allclose(last.costs, past.costs, rtol=1e-4)
    both = volume(batch)
    assert np.all(both.observed >= past.observed) and np.any(both.observed > past.observed)
    seen = np.asarray(past.observed)
    cheaper = np.asarray(past.costs)[seen] - np.asarray(both.costs)[seen]
    assert np.all(cheaper > -1e-4) and np.any(cheaper > 1e-2)
