"""Depth decoder of Monodepth2 (Godard et al. 2019): up-convolutions with skips, one sigmoid disparity per scale."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dd_jax.networks.layers import Conv, Draws, conv, plus, reflect_pad, rematerialised, upsampled_conv
from dd_jax.types import NUM_SCALES

LEVELS = 5


class DepthDecoder(nnx.Module):
    """Five encoder features -> disparities in (0, 1) at 1, 1/2, 1/4 and 1/8 of the image size.

    Args:
      encoder_channels: channels of the features at 1/2 ... 1/32.
      initial_disp: output of the untrained heads, set by their bias; 0 = PyTorch's default bias, about 0.5.
      smooth: up-sample features bilinearly (SC-Depth) and not by repetition.
      width: 64 in the published networks; the channels 16, 32, 64, 128, 256 scale with it, none below 8.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        *,
        width: int = 64,
        initial_disp: float = 0.0,
        smooth: bool = False,
        draws: Draws,
    ):
        self.join = _join_smoothly if smooth else _join
        self.remat = "none"
        channels = [max(8, width * 2**level // 4) for level in range(LEVELS)]
        inputs = [*channels[1:], encoder_channels[-1]]
        skips = [0, *encoder_channels[:-1]]
        self.before, self.after, self.heads = nnx.Dict(), nnx.Dict(), nnx.Dict()
        for level in reversed(range(LEVELS)):
            self.before[f"level{level}"] = Conv(inputs[level], channels[level], 3, draws=draws)
            self.after[f"level{level}"] = Conv(channels[level] + skips[level], channels[level], 3, draws=draws)
        for scale in range(NUM_SCALES):
            self.heads[f"scale{scale}"] = Conv(channels[scale], 1, 3, draws=draws)
            if initial_disp > 0:
                self.heads[f"scale{scale}"].bias[...] = jnp.full(1, math.log(initial_disp / (1 - initial_disp)))

    def __call__(self, features: Sequence[Float[Array, "b _ _ _"]]) -> tuple[Float[Array, "b _ _"], ...]:
        """Features at 1/2 ... 1/32 of the size -> disparities, full size first."""
        disps = []
        x = features[-1]
        for level in reversed(range(LEVELS)):
            skips = features[level - 1 : level] if level > 0 else ()
            x = rematerialised(self.remat, _at(level), self, x, *skips)
            if level < NUM_SCALES:
                disps.append(jax.nn.sigmoid(self.heads[f"scale{level}"](reflect_pad(x))[..., 0].astype(jnp.float32)))
        return tuple(reversed(disps))

    def level(self, level: int, x: Float[Array, "b h w c"], *skip: Float[Array, "b 2*h 2*w s"]) -> Float[Array, "b 2*h 2*w o"]:
        """Twice the size, with the encoder's features of that size where there are any."""
        x = jax.nn.elu(self.before[f"level{level}"](reflect_pad(x)))
        return jax.nn.elu(self.join(self.after[f"level{level}"], x, *skip))


def _at(level: int) -> Callable:
    return lambda decoder, x, *skip: decoder.level(level, x, *skip)


def _join(
    layer: Conv, x: Float[Array, "b h w c"], skip: Float[Array, "b 2*h 2*w s"] | None = None
) -> Float[Array, "b 2*h 2*w o"]:
    """``layer`` on [up-sampled ``x``, ``skip``], each part by the cheapest way."""
    kernel = layer.kernel[...]
    y = plus(upsampled_conv(x, kernel[:, :, : x.shape[-1]]), layer.bias[...])
    return y if skip is None else y + conv(reflect_pad(skip), kernel[:, :, x.shape[-1] :], 1, 0)


def _join_smoothly(
    layer: Conv, x: Float[Array, "b h w c"], skip: Float[Array, "b 2*h 2*w s"] | None = None
) -> Float[Array, "b 2*h 2*w o"]:
    b, h, w, c = x.shape
    x = jax.image.resize(x, (b, 2 * h, 2 * w, c), "bilinear")
    return layer(reflect_pad(x if skip is None else jnp.concatenate([x, skip], axis=-1)))
