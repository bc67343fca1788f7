"""Residual motion of every point between two frames (the poster, contribution 4)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dd_jax.networks.layers import Conv, Draws, TransposedConv

LEVELS = 7
OUT_SCALE = 0.1
"""Factor on every predicted flow, so that training starts near the rigid scene."""


class FlowNet(nnx.Module):
    """Images -> flow at 1, 1/2, 1/4 and 1/8 of their size; an hourglass with skips and no normalisation.

    Args:
      width: channels of the second level; 64 gives the published network.
      inputs, outputs: channels. Two images and 3-D flow (the poster), or 12 and 2 (DS-Depth).
    """

    def __init__(self, width: int, *, inputs: int = 6, outputs: int = 3, draws: Draws):
        down = [inputs, width // 2, width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        up = [width // 4, width // 2, width, 2 * width, 4 * width, 8 * width, 8 * width]
        for level in range(1, LEVELS + 1):
            size = {1: 7, 2: 5}.get(level, 3)
            setattr(self, f"conv{level}", _Down(down[level - 1], down[level], size, draws=draws))
            deeper = up[level] if level < LEVELS else down[LEVELS]
            skip = down[level - 1] if level > 1 else 0
            flow = outputs if level < 4 else 0
            setattr(self, f"upconv{level}", TransposedConv(deeper, up[level - 1], draws=draws))
            setattr(self, f"iconv{level}", Conv(up[level - 1] + skip + flow, up[level - 1], 3, padding=1, draws=draws))
            if level <= 4:
                setattr(self, f"flow{level}", Conv(up[level - 1], outputs, 1, draws=draws))

    def __call__(self, *parts: Float[Array, "b h w _"]) -> tuple[Float[Array, "b _ _ o"], ...]:
        """RGB in [0, 1], and what else there is, by channels -> flow, full size first."""
        x = jnp.concatenate(parts, axis=-1)
        skips = [x]
        for level in range(1, LEVELS + 1):
            x = getattr(self, f"conv{level}")(x)
            skips.append(x)
        flows: list[jax.Array] = []
        for level in range(LEVELS, 0, -1):
            skip = skips[level - 1]
            height, width = skip.shape[1:3]
            parts = [jax.nn.relu(getattr(self, f"upconv{level}")(x))[:, :height, :width]]
            if level > 1:
                parts.append(skip)
            if flows:
                parts.append(_double(flows[-1])[:, :height, :width])
            x = jax.nn.relu(getattr(self, f"iconv{level}")(jnp.concatenate(parts, axis=-1)))
            if level <= 4:
                flows.append(OUT_SCALE * getattr(self, f"flow{level}")(x).astype(jnp.float32))
        return tuple(flows[::-1])


class _Down(nnx.Module):
    def __init__(self, inputs: int, outputs: int, size: int, *, draws: Draws):
        self.first = Conv(inputs, outputs, size, stride=2, padding=size // 2, draws=draws)
        self.second = Conv(outputs, outputs, size, padding=size // 2, draws=draws)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        return jax.nn.relu(self.second(jax.nn.relu(self.first(x))))


def _double(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, 2 * h, 2 * w, c), "bilinear", antialias=False)
