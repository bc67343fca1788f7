"""Relative camera pose of two consecutive images (Godard et al. 2019)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dd_jax.networks.layers import Conv, Draws
from dd_jax.networks.resnet import ResNet, feature_channels

LAYERS = 18
PUBLISHED_SCALE = 0.01
"""Factor on rotation and translation in the published networks, so that training starts near the identity."""


class PoseNet(nnx.Module):
    """Two images in temporal order -> axis-angle and translation of ``T_b_from_a``.

    Args:
      width: channels of the first encoder stage; the decoder has four times as many.
      rotation_scale, translation_scale: factors on the two outputs. What has the larger one is learnt faster: with a small
        translation, depth shrinks to meet it, and with a small rotation, turns are explained by sideways translation.
      initial_forward: the camera goes ahead by so much before anything is learnt. From 0, networks without pretraining may
        explain the road by a translation downwards first and put all that is above it at infinity.
    """

    def __init__(
        self,
        width: int,
        *,
        rotation_scale: float = PUBLISHED_SCALE,
        translation_scale: float = PUBLISHED_SCALE,
        initial_forward: float = 0.0,
        draws: Draws,
        axis: str | None = None,
    ):
        self.rotation_scale, self.translation_scale = rotation_scale, translation_scale
        channels = 4 * width
        self.encoder = ResNet(LAYERS, width, in_images=2, draws=draws, axis=axis)
        self.squeeze = Conv(feature_channels(LAYERS, width)[-1], channels, 1, draws=draws)
        self.conv1 = Conv(channels, channels, 3, padding=1, draws=draws)
        self.conv2 = Conv(channels, channels, 3, padding=1, draws=draws)
        # Published checkpoints predict two poses; only the first one was ever used.
        self.out = Conv(channels, 12, 1, draws=draws)
        if initial_forward:
            bias = self.out.bias[...]
            self.out.bias.set_value(bias.at[5].add(-initial_forward / translation_scale))

    def __call__(
        self, image_a: Float[Array, "b h w 3"], image_b: Float[Array, "b h w 3"], batches: int = 1
    ) -> tuple[Float[Array, "b 3"], Float[Array, "b 3"]]:
        """RGB in [0, 1] -> (axis-angle in radians, translation in the unit of the depth networks).

        The pairs belong to ``batches`` batches in turn, each normalised by statistics of its own.
        """
        norm = self.encoder.conv1.norm
        if not norm.use_running_average and norm.groups != batches:
            self.encoder.set_attributes(groups=batches)
        return self.decode(self.encoder(jnp.concatenate([image_a, image_b], axis=-1))[-1])

    def decode(self, features: Float[Array, "b h w c"]) -> tuple[Float[Array, "b 3"], Float[Array, "b 3"]]:
        """Deepest features of both images -> (axis-angle, translation)."""
        x = jax.nn.relu(self.squeeze(features))
        x = jax.nn.relu(self.conv1(x))
        x = jax.nn.relu(self.conv2(x))
        pose = jnp.mean(self.out(x), axis=(1, 2), dtype=jnp.float32)
        return self.rotation_scale * pose[:, :3], self.translation_scale * pose[:, 3:6]
