"""Relative camera pose of two consecutive images (Godard et al. 2019)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from dd_jax.geometry.sampling import reduce_image
from dd_jax.networks.layers import Conv, Draws
from dd_jax.networks.resnet import ResNet, feature_channels

LAYERS = 18

FORWARD_CHANNEL = 5
"""Output channel of the translation along the optical axis."""

PUBLISHED_SCALE = 0.01
"""Factor on rotation and translation in the published networks, so that training starts near the identity."""


class PoseNet(nnx.Module):
    """Two images -> axis-angle and translation of ``T_b_from_a``.

    Args:
      width: channels of the first encoder stage; the decoder has four times as many.
      rotation_scale, translation_scale: factors on the two outputs. The one with the larger factor is learnt faster: with a small
        translation, depth shrinks to match it; with a small rotation, turns are explained by sideways translation.
      initial_forward: forward translation of the untrained network, an initial bias of its last layer. Starting from 0, networks
        without pretraining may first explain the road by a downward translation and push everything above it to infinity.
      downscale: factor by which both images are reduced first.
    """

    def __init__(
        self,
        width: int,
        *,
        rotation_scale: float = PUBLISHED_SCALE,
        translation_scale: float = PUBLISHED_SCALE,
        initial_forward: float = 0.0,
        downscale: int = 1,
        draws: Draws,
        axis: str | None = None,
    ):
        self.rotation_scale, self.translation_scale, self.downscale = rotation_scale, translation_scale, downscale
        channels = 4 * width
        self.encoder = ResNet(LAYERS, width, in_images=2, draws=draws, axis=axis)
        self.squeeze = Conv(feature_channels(LAYERS, width)[-1], channels, 1, draws=draws)
        self.conv1 = Conv(channels, channels, 3, padding=1, draws=draws)
        self.conv2 = Conv(channels, channels, 3, padding=1, draws=draws)
        # Published checkpoints predict two poses; only the first one was ever used.
        self.out = Conv(channels, 12, 1, draws=draws)
        self.has_forward_bias = initial_forward != 0
        if self.has_forward_bias:
            bias = self.out.bias[...]
            self.out.bias.set_value(bias.at[FORWARD_CHANNEL].add(-initial_forward / translation_scale))

    def __call__(
        self,
        image_a: Float[Array, "b h w 3"],
        image_b: Float[Array, "b h w 3"],
        groups: int = 1,
        backward: Bool[Array, "*b"] | None = None,
    ) -> tuple[Float[Array, "b 3"], Float[Array, "b 3"]]:
        """RGB in [0, 1] -> (axis-angle in radians, translation in the unit of the depth networks).

        Args:
          groups: the pairs belong to this many batches, interleaved; each is normalised by its own statistics.
          backward: pairs in reversed temporal order. There the forward bias changes its sign, if the network started with one.
        """
        norm = self.encoder.conv1.norm
        if not norm.use_running_average and norm.groups != groups:
            self.encoder.set_attributes(groups=groups)
        images = reduce_image(jnp.concatenate([image_a, image_b], axis=-1), self.downscale.bit_length() - 1)
        rotation, translation = self.decode(self.encoder(images)[-1])
        if backward is not None and self.has_forward_bias:
            change = -2 * self.translation_scale * self.out.bias[FORWARD_CHANNEL]
            translation = translation.at[:, 2].add(jnp.where(backward, change, 0.0))
        return rotation, translation

    def decode(self, features: Float[Array, "b h w c"]) -> tuple[Float[Array, "b 3"], Float[Array, "b 3"]]:
        """Deepest features of both images -> (axis-angle, translation)."""
        x = jax.nn.relu(self.squeeze(features))
        x = jax.nn.relu(self.conv1(x))
        x = jax.nn.relu(self.conv2(x))
        pose = jnp.mean(self.out(x), axis=(1, 2), dtype=jnp.float32)
        return self.rotation_scale * pose[:, :3], self.translation_scale * pose[:, 3:6]
