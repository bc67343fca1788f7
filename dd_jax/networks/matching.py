"""Student encoder: a ResNet that reads a cost volume at a quarter of the image size (ManyDepth, Watson et al. 2021)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dd_jax.networks.layers import Conv, Draws
from dd_jax.networks.resnet import ResNet, feature_channels
from dd_jax.types import CostVolume


class MatchingEncoder(nnx.Module):
    """ResNet whose third stage starts from image features fused with ``bins`` matching costs.

    The cost volume is built by the caller from :meth:`features` of the current and the lookup images.

    Args:
      temperature: of the probabilities of the bins that replace the costs; 0: costs as they are (ManyDepth).
      fusion: of a static and a dynamic volume (DS-Depth): "min" | "conv" | "both"; "": there is one volume only.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        bins: int,
        *,
        temperature: float = 0.0,
        fusion: str = "",
        draws: Draws,
        axis: str | None = None,
    ):
        self.temperature = temperature
        self.resnet = ResNet(layers, width, draws=draws, axis=axis)
        channels = feature_channels(layers, width)[1]
        self.take_costs = fusion != "conv"
        self.fusion = Conv(2 * bins, bins, 3, padding=1, draws=draws) if fusion in ("conv", "both") else None
        self.reduce = Conv(channels + bins, channels, 3, padding=1, draws=draws)

    def features(self, image: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ c0"], Float[Array, "b _ _ c1"]]:
        """RGB in [0, 1] -> features at 1/2 and at 1/4; the latter are what is matched."""
        return self.resnet.shallow(image)

    def fuse(
        self, f0: Float[Array, "b _ _ c0"], f1: Float[Array, "b hq wq c1"], volume: CostVolume
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Current features and their costs -> features at 1/2 ... 1/32 for the decoder.

        The decoder's skip at 1/4 is ``f1``, from before the fusion; costs count only where every bin is observed.
        """
        costs = volume.costs if self.take_costs else 0.0
        if self.fusion is not None:
            costs = costs + jax.nn.relu(self.fusion(volume.static_and_dynamic))
        if self.temperature > 0:
            costs = costs.shape[-1] / 8 * jax.nn.softmax(costs / -self.temperature, axis=-1)
        costs = (costs * volume.confidence[..., None]).astype(f1.dtype)
        fused = jax.nn.relu(self.reduce(jnp.concatenate([f1, costs], axis=-1)))
        return f0, f1, *self.resnet.deep(fused)
