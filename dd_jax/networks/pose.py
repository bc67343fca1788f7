"""Relative camera pose of two consecutive images (Godard et al. 2019)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dd_jax.networks.layers import Conv, Draws
from dd_jax.networks.resnet import ResNet, feature_channels

LAYERS = 18
POSE_SCALE = 0.01
"""Keeps the first poses small, so that training starts near the identity."""


class PoseNet(nnx.Module):
    """Two images in temporal order -> axis-angle and translation of ``T_b_from_a``.

    Args:
      width: channels of the first encoder stage; the decoder has four times as many.
      translation_scale: factor on the translation. The depth networks and this one share a free scale; a small factor makes
        large translations slow to learn, and depth shrinks to meet them.
    """

    def __init__(self, width: int, *, translation_scale: float = POSE_SCALE, draws: Draws, axis: str | None = None):
        self.translation_scale = translation_scale
        channels = 4 * width
        self.encoder = ResNet(LAYERS, width, in_images=2, draws=draws, axis=axis)
        self.squeeze = Conv(feature_channels(LAYERS, width)[-1], channels, 1, draws=draws)
        self.conv1 = Conv(channels, channels, 3, padding=1, draws=draws)
        self.conv2 = Conv(channels, channels, 3, padding=1, draws=draws)
        # Published checkpoints predict two poses; only the first one was ever used.
        self.out = Conv(channels, 12, 1, draws=draws)

    def __call__(
        self, image_a: Float[Array, "b h w 3"], image_b: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b 3"], Float[Array, "b 3"]]:
        """RGB in [0, 1] -> (axis-angle in radians, translation in the unit of the depth networks)."""
        return self.decode(self.encoder(jnp.concatenate([image_a, image_b], axis=-1))[-1])

    def decode(self, features: Float[Array, "b h w c"]) -> tuple[Float[Array, "b 3"], Float[Array, "b 3"]]:
        """Deepest features of both images -> (axis-angle, translation)."""
        x = jax.nn.relu(self.squeeze(features))
        x = jax.nn.relu(self.conv1(x))
        x = jax.nn.relu(self.conv2(x))
        pose = jnp.mean(self.out(x), axis=(1, 2))
        return POSE_SCALE * pose[:, :3], self.translation_scale * pose[:, 3:6]
