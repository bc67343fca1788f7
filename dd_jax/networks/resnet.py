"""ResNet encoders with five feature maps, at 1/2 to 1/32 of the image size (He et al. 2016; stride on the 3x3 as torchvision)."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from dd_jax.networks.layers import ConvBN, Draws, max_pool, normalise, rematerialised

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Residual blocks per stage; basic blocks in 18 and 34 layers, bottlenecks in 50."""

EXPANSION = 4
"""A bottleneck's outputs per inner channel."""


def feature_channels(layers: int, width: int) -> tuple[int, int, int, int, int]:
    """Channels of the five feature maps of :class:`ResNet`."""
    expansion = EXPANSION if layers == 50 else 1
    return (width, *(expansion * width * 2**stage for stage in range(4)))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, draws: Draws, axis: str | None):
        self.conv1 = ConvBN(inputs, outputs, 3, stride=stride, draws=draws, axis=axis)
        self.conv2 = ConvBN(outputs, outputs, 3, draws=draws, axis=axis)
        self.shortcut = _shortcut(inputs, outputs, stride, draws, axis)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = self.conv2(jax.nn.relu(self.conv1(x)))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; ``outputs`` is four times the inner width."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, draws: Draws, axis: str | None):
        inner = outputs // EXPANSION
        self.conv1 = ConvBN(inputs, inner, 1, draws=draws, axis=axis)
        self.conv2 = ConvBN(inner, inner, 3, stride=stride, draws=draws, axis=axis)
        self.conv3 = ConvBN(inner, outputs, 1, draws=draws, axis=axis)
        self.shortcut = _shortcut(inputs, outputs, stride, draws, axis)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = self.conv3(jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x)))))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _shortcut(inputs: int, outputs: int, stride: int, draws: Draws, axis: str | None) -> ConvBN | None:
    """1x1 projection where the block changes size or channels, else None (= identity)."""
    if inputs == outputs and stride == 1:
        return None
    return ConvBN(inputs, outputs, 1, stride=stride, draws=draws, axis=axis)


class Stage(nnx.Module):
    """Residual blocks of one resolution; the first one may halve it."""

    def __init__(self, block: type, blocks: int, inputs: int, outputs: int, stride: int, *, draws: Draws, axis: str | None):
        self.remat = "none"
        self.blocks = nnx.Dict()
        for i in range(blocks):
            first = i == 0
            self.blocks[f"block{i}"] = block(
                inputs if first else outputs, outputs, stride if first else 1, draws=draws, axis=axis
            )

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        for i in range(len(self.blocks)):
            block = self.blocks[f"block{i}"]
            x = rematerialised(self.remat, type(block).__call__, block, x)
        return x


class ResNet(nnx.Module):
    """Images -> five feature maps at 1/2, 1/4, ... 1/32 of their size.

    Args:
      layers: 18, 34 or 50.
      width: channels of the first stage; 64 in the published networks.
      in_images: RGB images concatenated along the channels of the input.
      axis: name of the device axis over which batch statistics are shared, or None.
    """

    def __init__(self, layers: int, width: int, *, in_images: int = 1, draws: Draws, axis: str | None = None):
        if layers not in BLOCKS:
            raise ValueError(f"ResNet has {', '.join(map(str, BLOCKS))} layers, not {layers}: set --config.model.student_layers")
        block = Bottleneck if layers == 50 else BasicBlock
        channels = feature_channels(layers, width)
        self.conv1 = ConvBN(3 * in_images, width, 7, stride=2, draws=draws, axis=axis)
        stages = [
            Stage(block, blocks, channels[i], channels[i + 1], 1 if i == 0 else 2, draws=draws, axis=axis)
            for i, blocks in enumerate(BLOCKS[layers])
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def shallow(self, image: Float[Array, "b h w c"]) -> tuple[Float[Array, "b _ _ c0"], Float[Array, "b _ _ c1"]]:
        """Features at 1/2 and 1/4 of the image size."""
        f0 = jax.nn.relu(self.conv1(normalise(image)))
        return f0, self.layer1(max_pool(f0))

    def deep(self, x: Float[Array, "b hq wq c1"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Features at 1/8, 1/16 and 1/32 of the image size from a map at 1/4."""
        f2 = self.layer2(x)
        f3 = self.layer3(f2)
        return f2, f3, self.layer4(f3)

    def __call__(self, image: Float[Array, "b h w c"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """RGB in [0, 1], sides multiples of 32 -> features at 1/2, 1/4, 1/8, 1/16 and 1/32."""
        f0, f1 = self.shallow(image)
        return f0, f1, *self.deep(f1)
