"""Edge-aware smoothness of disparity and smoothness of flow."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dd_jax.geometry.sampling import reduce_image
from dd_jax.runtime import reduce
from dd_jax.types import NUM_SCALES

EdgeWeights = tuple[tuple[Float[Array, "b _ _"], Float[Array, "b _ _"]], ...]
"""Per scale: exp(-|gradient of the image|) along x and along y."""


def image_pyramid(image: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ 3"], ...]:
    """The image at 1, 1/2, 1/4 and 1/8 of its size, each level the 2x2 mean of the previous one."""
    pyramid = [image]
    for _ in range(NUM_SCALES - 1):
        pyramid.append(reduce_image(pyramid[-1], 1))
    return tuple(pyramid)


def edge_weights(pyramid: tuple[Float[Array, "b _ _ 3"], ...]) -> EdgeWeights:
    """Edge weights between neighbouring pixels, at every scale; shared by all networks."""

    def weight(difference):
        absolute = jnp.abs(difference)
        return jnp.exp(-(absolute[..., 0] + absolute[..., 1] + absolute[..., 2]) * (1 / 3))

    return tuple((weight(x[:, :, 1:] - x[:, :, :-1]), weight(x[:, 1:] - x[:, :-1])) for x in pyramid)


def normalized(disp: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """Disparity divided by its mean over the image, so that scaling disparity down does not make it smoother."""
    return disp / (jnp.mean(disp, axis=(1, 2), keepdims=True) + 1e-7)


def smoothness(disps: tuple[Float[Array, "b _ _"], ...], edges: EdgeWeights, axis: str | None) -> Float[Array, " s"]:
    """First-order edge-aware smoothness of the normalised disparity, divided by 2^s at scale s (Monodepth2, eq. 2).

    ``disps`` are sigmoid outputs at their native sizes; ``axis`` names the device axis of the means.
    """
    terms = []
    for scale, (disp, (along_x, along_y)) in enumerate(zip(disps, edges, strict=True)):
        d = normalized(disp)
        x = reduce.mean(jnp.abs(d[:, :, 1:] - d[:, :, :-1]) * along_x, axis)
        y = reduce.mean(jnp.abs(d[:, 1:] - d[:, :-1]) * along_y, axis)
        terms.append((x + y) / 2**scale)
    return jnp.stack(terms)


def flow_smoothness(flows: tuple[Float[Array, "b f _ _ 2"], ...], axis: str | None) -> Float[Array, " s"]:
    """First-order smoothness of a flow at its native size, not edge-aware, divided by 2^s at scale s (DS-Depth)."""
    terms = []
    for scale, flow in enumerate(flows):
        x = reduce.mean(jnp.abs(flow[:, :, :, 1:] - flow[:, :, :, :-1]), axis)
        y = reduce.mean(jnp.abs(flow[:, :, 1:] - flow[:, :, :-1]), axis)
        terms.append((x + y) / 2**scale)
    return jnp.stack(terms)
