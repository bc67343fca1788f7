import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dd_jax.geometry.sampling import reduce_image
from dd_jax.networks.depth_decoder import DepthDecoder
from dd_jax.networks.flow_net import FlowNet
from dd_jax.networks.layers import Draws
from dd_jax.networks.matching import MatchingEncoder
from dd_jax.networks.pose import PoseNet
from dd_jax.networks.resnet import ResNet, feature_channels
from dd_jax.types import CostVolume


def abstract(build):
    return nnx.eval_shape(build)


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def shapes(tree):
    return [leaf.shape for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    ("layers", "encoder", "two_images", "student", "decoder"),
    [
        (18, 11_176_512, 11_185_920, 11_268_736, 3_152_724),
        (50, 23_508_032, 23_517_440, 24_319_296, 9_014_100),
    ],
)
def test_parameter_counts_of_the_published_networks(layers, encoder, two_images, student, decoder):
    assert count(abstract(lambda: ResNet(layers, 64, draws=Draws()))) == encoder
    assert count(abstract(lambda: ResNet(layers, 64, in_images=2, draws=Draws()))) == two_images
    assert count(abstract(lambda: MatchingEncoder(layers, 64, 96, draws=Draws()))) == student
    assert count(abstract(lambda: DepthDecoder(feature_channels(layers, 64), draws=Draws()))) == decoder


def test_parameter_count_of_the_pose_decoder():
    pose = abstract(lambda: PoseNet(64, draws=Draws()))
    assert count(pose) - count(pose.encoder) == 1_314_572


def test_flow_net_has_its_published_size():
    assert count(abstract(lambda: FlowNet(64, draws=Draws()))) == 31_602_188
    flows = jax.eval_shape(lambda image: FlowNet(8, draws=Draws())(image, image), jnp.zeros((2, 192, 512, 3)))
    assert shapes(flows) == [(2, 192 >> s, 512 >> s, 3) for s in range(4)]


@pytest.mark.parametrize("layers", [18, 34, 50])
def test_sizes_of_features_and_disparities(layers):
    channels = feature_channels(layers, 8)

    def run(image):
        features = ResNet(layers, 8, draws=Draws())(image)
        return features, DepthDecoder(channels, width=8, draws=Draws())(features)

    features, disps = jax.eval_shape(run, jnp.zeros((2, 64, 96, 3)))
    assert shapes(features) == [(2, 64 >> i, 96 >> i, c) for i, c in zip(range(1, 6), channels)]
    assert shapes(disps) == [(2, 64 >> s, 96 >> s) for s in range(4)]


def test_decoder_channels_scale_with_the_width():
    decoder = abstract(lambda: DepthDecoder(feature_channels(18, 32), width=32, draws=Draws()))
    assert [decoder.before[f"level{i}"].bias.shape[0] for i in range(5)] == [8, 16, 32, 64, 128]
    narrow = abstract(lambda: DepthDecoder(feature_channels(18, 8), width=8, draws=Draws()))
    assert [narrow.before[f"level{i}"].bias.shape[0] for i in range(5)] == [8, 8, 8, 16, 32]


def test_unknown_number_of_layers_raises():
    with pytest.raises(ValueError, match="18, 34, 50"):
        ResNet(101, 8, draws=Draws())


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).random((2, 64, 96, 3), np.float32))


def test_untrained_pose_is_small_and_depends_on_image_order(images):
    pose = PoseNet(8, draws=Draws(0))
    pose.eval()
    axis_angle, translation = pose(images[:1], images[1:])
    assert axis_angle.shape == translation.shape == (1, 3)
    assert np.max(np.abs(np.concatenate([axis_angle, translation]))) < 0.1
    assert not np.allclose(axis_angle, pose(images[1:], images[:1])[0])


def test_pose_is_the_first_six_of_the_mean_output():
    """Known last layer: zero kernel, bias 0 .. 11."""
    pose = PoseNet(8, draws=Draws(0))
    pose.out.kernel[...] = jnp.zeros_like(pose.out.kernel[...])
    pose.out.bias[...] = jnp.arange(12.0)
    axis_angle, translation = pose.decode(jnp.ones((1, 2, 3, 64)))
    np.testing.assert_allclose(axis_angle[0], [0, 0.01, 0.02], atol=1e-7)
    np.testing.assert_allclose(translation[0], [0.03, 0.04, 0.05], atol=1e-7)
    pose.rotation_scale, pose.translation_scale = 0.1, 1.0
    axis_angle, translation = pose.decode(jnp.ones((1, 2, 3, 64)))
    np.testing.assert_allclose(axis_angle[0], [0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(translation[0], [3, 4, 5], atol=1e-5)


def test_downscale_reduces_both_images_first(images):
    whole, reduced = PoseNet(8, draws=Draws(0)), PoseNet(8, downscale=2, draws=Draws(0))
    whole.eval()
    reduced.eval()
    small = reduce_image(images, 1)
    np.testing.assert_array_equal(reduced(images[:1], images[1:]), whole(small[:1], small[1:]))


def test_initial_forward_shifts_the_translation(images):
    """From one frame to the next points come nearer: T_b_from_a has a negative z."""
    still, ahead = (PoseNet(8, translation_scale=0.05, initial_forward=way, draws=Draws(0)) for way in (0.0, 0.2))
    (angle, translation), (same_angle, moved) = still(images[:1], images[1:]), ahead(images[:1], images[1:])
    np.testing.assert_array_equal(angle, same_angle)
    np.testing.assert_allclose(moved - translation, [[0, 0, -0.2]], atol=1e-6)


def volume_of(costs, confidence):
    return CostVolume(costs=costs, observed=jnp.ones(costs.shape, bool), confidence=confidence, lowest=confidence)


def test_unconfident_costs_have_no_effect(images):
    encoder = MatchingEncoder(18, 8, 4, draws=Draws(0))
    encoder.eval()
    f0, f1 = encoder.features(images)
    costs = jnp.asarray(np.random.default_rng(1).random((2, 16, 24, 4)), jnp.float32)
    nowhere, everywhere = jnp.zeros((2, 16, 24)), jnp.ones((2, 16, 24))
    unsure = encoder.fuse(f0, f1, volume_of(costs, nowhere))
    without = encoder.fuse(f0, f1, volume_of(0 * costs, everywhere))
    for a, b in zip(unsure, without):
        np.testing.assert_array_equal(a, b)
    sure = encoder.fuse(f0, f1, volume_of(costs, everywhere))
    assert not np.allclose(sure[2], unsure[2])
    np.testing.assert_array_equal(sure[1], f1)


def test_probabilities_of_bins_ignore_a_constant_cost(images):
    costs = jnp.asarray(np.random.default_rng(1).random((2, 16, 24, 4)), jnp.float32)
    for temperature, changes in ((0.0, True), (0.1, False)):
        encoder = MatchingEncoder(18, 8, 4, temperature=temperature, draws=Draws(0))
        encoder.eval()
        f0, f1 = encoder.features(images)
        one, dearer, other = (
            encoder.fuse(f0, f1, volume_of(x, jnp.ones((2, 16, 24))))[2] for x in (costs, costs + 0.5, costs[..., ::-1])
        )
        assert np.allclose(one, dearer, atol=1e-4) != changes
        assert not np.allclose(one, other, atol=1e-2)


def test_batch_statistics_move_with_every_training_call(images):
    encoder = MatchingEncoder(18, 8, 4, draws=Draws(0))
    encoder.features(images)
    once = np.array(encoder.resnet.conv1.norm.mean[...])
    encoder.features(images)
    np.testing.assert_allclose(encoder.resnet.conv1.norm.mean[...], 1.9 * once, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(encoder.resnet.layer2.blocks["block0"].conv1.norm.mean[...], 0)


def test_axis_reaches_every_batch_norm():
    model = abstract(lambda: PoseNet(8, draws=Draws(), axis="devices"))
    norms = [module for _, module in nnx.iter_modules(model) if hasattr(module, "use_running_average")]
    assert len(norms) == 20
    assert all(norm.axis == "devices" for norm in norms)
