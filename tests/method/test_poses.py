import jax.numpy as jnp
import numpy as np
import tiny

from dd_jax.geometry.se3 import invert_pose, pose_from_parameters
from dd_jax.method.poses import forward_backward_poses, predict_backward_poses, predict_direct_poses, predict_poses
from dd_jax.networks.layers import Draws
from dd_jax.networks.model import Networks
from dd_jax.networks.pose import FORWARD_CHANNEL, PoseNet


def untrained(config):
    model = Networks(config, Draws(0))
    model.eval()
    return model, jnp.asarray(tiny.batch(2).images, jnp.float32) / 255


def test_untrained_networks_predict_forward_motion_for_either_order():
    """The previous camera is behind: points are farther from it, and nearer to the next one."""
    ahead = {"initial_forward": 0.2, "translation_scale": 1e-6}
    model, inputs = untrained(tiny.config(model=ahead))
    np.testing.assert_allclose(predict_poses(model, inputs)[:, :, 2, 3], [[0.2, -0.2]] * 2, atol=2e-3)  # turned a little

    config = tiny.config(sc={"enabled": True}, model=ahead | {"student": False})
    model, inputs = untrained(config)
    for from_source, expected in ((False, [0.2, -0.2]), (True, [-0.2, 0.2])):
        poses = predict_direct_poses(model, inputs, from_source)
        np.testing.assert_allclose(poses[:, :, 2, 3], [expected] * 2, atol=1e-5)


def test_initial_forward_is_per_frame():
    """Frames that are three apart start with three times the motion."""
    ahead = {"initial_forward": 0.2, "translation_scale": 1e-6}
    model, inputs = untrained(tiny.config(model=ahead, data={"frame_step": 3}))
    np.testing.assert_allclose(predict_poses(model, inputs)[:, :, 2, 3], [[0.6, -0.6]] * 2, atol=6e-3)


def test_initial_forward_is_only_an_initial_bias():
    """With a bias of zero, neither order of a pair has a preferred direction."""
    model, inputs = untrained(tiny.config(model={"initial_forward": 0.2, "translation_scale": 1e-6}))
    out = model.pose.out
    out.bias.set_value(out.bias[...].at[FORWARD_CHANNEL].set(0.0))
    np.testing.assert_allclose(predict_poses(model, inputs)[:, :, 2, 3], 0, atol=1e-5)
    np.testing.assert_allclose(predict_backward_poses(model, inputs)[:, :, 2, 3], 0, atol=1e-5)


def consistent_poses(turn, way):
    """Replaces the pose network: motion proportional to the difference in brightness, reversed pairs get the inverse."""
    turn, way = jnp.array(turn), jnp.array(way)

    def pose(self, first, second, groups=1, backward=None):
        steps = jnp.mean(second - first, axis=(1, 2, 3))[:, None]
        ahead = jnp.abs(steps) * turn, jnp.abs(steps) * way
        back = invert_pose(pose_from_parameters(*ahead))[:, :3, 3]
        return jnp.sign(steps) * ahead[0], jnp.where(steps > 0, ahead[1], back)

    return pose


def test_consistent_poses_compose_to_the_identity(monkeypatch):
    """For any motion, different for both source frames (the poster, contribution 2)."""
    config = tiny.config()
    model, inputs = untrained(config)
    inputs = jnp.broadcast_to(jnp.array([[0.0, 1.0, 3.0], [0.5, 1.0, 1.25]])[..., None, None, None], inputs.shape)
    monkeypatch.setattr(PoseNet, "__call__", consistent_poses([0.1, -0.2, 0.05], [0.3, 0.1, -0.8]))
    T = predict_poses(model, inputs)
    assert np.all(np.abs(np.asarray(T) - np.eye(4)).max(axis=(2, 3)) > 0.1)
    np.testing.assert_allclose(forward_backward_poses(model, inputs, T), np.broadcast_to(np.eye(4), T.shape), atol=1e-6)
    elsewhere = np.asarray(forward_backward_poses(model, inputs, jnp.roll(T, 1, axis=0)))
    assert np.all(np.abs(elsewhere - np.eye(4)).max(axis=(2, 3)) > 0.05)


def test_initial_forward_cancels_in_forward_backward_poses():
    """The initial bias adds no pose cycle error."""
    found = []
    for ahead in (0.0, 0.2):
        config = tiny.config(model={"initial_forward": ahead, "rotation_scale": 1e-6, "translation_scale": 1e-6})
        model, inputs = untrained(config)
        found.append(forward_backward_poses(model, inputs, predict_poses(model, inputs)))
    np.testing.assert_allclose(*found, atol=1e-6)
