import numpy as np
import pytest

from dd_jax.data.synthetic import shapes
from dd_jax.data.synthetic.primitives import Builder
from dd_jax.data.synthetic.textures import ID


def extent(kind, seed):
    """Bounding box of an object's primitives: (lowest, highest) per axis."""
    build = Builder(np.random.default_rng(seed))
    shapes.add(build, kind)
    build.patch((0, -0.5, 0), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 1), ID["metal"])
    build.ellipsoid((0, -0.5, 0), (0.1, 0.1, 0.1), ID["metal"])
    patches, quadrics = build.finish()
    reach = [(patches.center, np.abs(patches.axes[:, :2]).sum(1)), (quadrics.center, np.linalg.norm(quadrics.axes, axis=1))]
    return np.min([(c - r).min(0) for c, r in reach], 0), np.max([(c + r).max(0) for c, r in reach], 0)


@pytest.mark.parametrize("kind", shapes.FOOTPRINT)
def test_objects_on_ground_within_footprint(kind):
    length, width = shapes.FOOTPRINT[kind]
    for seed in range(6):
        low, high = extent(kind, seed)
        assert -0.02 < high[1] < 0.35 or kind == "pedestrian"  # Y points down: wheels or feet are at 0
        assert low[1] < -1.2
        slack = 0.35 if kind in ("pedestrian", "cyclist") else 0.05
        assert high[0] - low[0] < width + slack and high[2] - low[2] < length + slack


def test_patches_face_outwards():
    build = Builder(np.random.default_rng(0))
    shapes.building(build, -3.0, 10.0, 5.0, 22.0, 3, gable=True)
    build.ellipsoid((0, 0, 0), (1, 1, 1), ID["metal"])
    patches, _ = build.finish()
    middle = np.array([1, -5, 16.0])
    assert (np.einsum("nj,nj->n", patches.axes[:, 2], patches.center - middle) > 0).all()


def test_paint_range():
    colours = np.array([shapes.paint(np.random.default_rng(i)) for i in range(50)])
    assert colours.min() >= 0 and colours.max() <= 1 and len(np.unique(colours.round(2), axis=0)) > 20
