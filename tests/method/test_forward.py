import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from dd_jax.geometry.se3 import invert_pose, pose_from_parameters
from dd_jax.method.forward import direct_poses, forward, pose_round_trips, predict_poses
from dd_jax.networks.layers import Draws
from dd_jax.networks.model import Model
from dd_jax.networks.pose import PoseNet


def untrained(config):
    model = Model(config, Draws(0))
    model.eval()
    return model, jnp.asarray(tiny.batch(2).images, jnp.float32) / 255


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


def survey(turn, way):
    """In the place of a pose network: knows the way between two frames from their brightness, and the way back as its inverse."""
    turn, way = jnp.array(turn), jnp.array(way)

    def pose(self, first, second, batches=1):
        steps = jnp.mean(second - first, axis=(1, 2, 3))[:, None]
        ahead = jnp.abs(steps) * turn, jnp.abs(steps) * way
        back = invert_pose(pose_from_parameters(*ahead))[:, :3, 3]
        return jnp.sign(steps) * ahead[0], jnp.where(steps > 0, ahead[1], back)

    return pose


def test_who_knows_the_way_back_returns_to_where_he_was(monkeypatch):
    """Whatever way he went, and however far to either frame (method M.12)."""
    config = tiny.config()
    model, inputs = untrained(config)
    inputs = jnp.broadcast_to(jnp.array([[0.0, 1.0, 3.0], [0.5, 1.0, 1.25]])[..., None, None, None], inputs.shape)
    monkeypatch.setattr(PoseNet, "__call__", survey([0.1, -0.2, 0.05], [0.3, 0.1, -0.8]))
    T = predict_poses(model, inputs)
    assert np.all(np.abs(np.asarray(T) - np.eye(4)).max(axis=(2, 3)) > 0.1)
    np.testing.assert_allclose(pose_round_trips(model, inputs, T, config.model), np.broadcast_to(np.eye(4), T.shape), atol=1e-6)
    elsewhere = np.asarray(pose_round_trips(model, inputs, jnp.roll(T, 1, axis=0), config.model))
    assert np.all(np.abs(elsewhere - np.eye(4)).max(axis=(2, 3)) > 0.05)


def test_untrained_systems_come_back():
    """The way ahead that they start with is no error of the way back."""
    found = []
    for ahead in (0.0, 0.2):
        config = tiny.config(model={"initial_forward": ahead, "rotation_scale": 1e-6, "translation_scale": 1e-3})
        model, inputs = untrained(config)
        found.append(pose_round_trips(model, inputs, predict_poses(model, inputs), config.model))
    np.testing.assert_allclose(*found, atol=1e-6)


def test_the_next_frame_is_matched_with_where_there_is_one():
    config = tiny.config(cost_volume={"future_frame": True})
    model, inputs = untrained(config)
    batch = tiny.batch(2).replace(images=inputs, inputs=inputs)
    limits = jnp.array([0.4, 2.4])

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
