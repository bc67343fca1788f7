import dataclasses

import jax
import numpy as np
import tiny

from dd_jax.forward import direct_poses, predict_poses
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
