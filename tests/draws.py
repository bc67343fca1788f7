"""What property tests draw: arrays, poses and cameras."""

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dd_jax.geometry import se3


def floats(shape, low, high):
    bounds = (float(np.float32(bound)) for bound in (low, high))
    return arrays(np.float32, shape, elements=st.floats(*bounds, width=32, allow_subnormal=False))  # backends flush them


def poses(*leading, rotation=3, translation=4):
    """(*leading, 4, 4): up to so many radians and metres along each axis."""
    parts = floats((*leading, 3), -rotation, rotation), floats((*leading, 3), -translation, translation)
    return st.tuples(*parts).map(lambda pair: se3.pose_from_parameters(*map(jnp.asarray, pair)))


cameras = st.tuples(st.floats(4, 20), st.floats(4, 20), st.floats(1, 6), st.floats(1, 4)).map(
    lambda values: jnp.array([[[values[0], 0, values[2]], [0, values[1], values[3]], [0, 0, 1]]], jnp.float32)
)
