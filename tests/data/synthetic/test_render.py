import cv2
import numpy as np
import pytest


def reproject(view, other, K):
    """Projection of every pixel of ``view`` into ``other`` for a static scene: (columns, rows, depth)."""
    h, w = view.inverse.shape
    v, u = np.mgrid[:h, :w].astype(float)
    depth = 1 / np.where(view.inverse > 0, view.inverse, np.nan).astype(float)
    points = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1) * depth[..., None]
    T = np.linalg.inv(other.T_world_cam) @ view.T_world_cam
    points = points @ T[:3, :3].T + T[:3, 3]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return x / z * K[0, 0] + K[0, 2], y / z * K[1, 1] + K[1, 2], z


def look_up(picture, x, y):
    fill = lambda a: np.nan_to_num(a, nan=-9).astype(np.float32)  # noqa: E731
    return cv2.remap(picture.astype(np.float32), fill(x), fill(y), cv2.INTER_LINEAR)


def inside(x, y, shape, margin=2):
    return (x > margin) & (x < shape[1] - 1 - margin) & (y > margin) & (y < shape[0] - 1 - margin)


def visible(view, other, x, y, z):
    """Static pixels that are visible in ``other`` too, away from occlusion edges."""
    kernel = np.ones((3, 3))
    nearest, farthest = cv2.dilate(other.inverse, kernel), cv2.erode(other.inverse, kernel)
    same = (look_up(nearest, x, y) * z < 1.12) & (look_up(farthest, x, y) * z > 0.88)
    still = look_up(cv2.dilate(other.moving.astype(np.uint8), kernel), x, y) == 0
    return inside(x, y, other.inverse.shape) & same & still & (cv2.dilate(view.moving.astype(np.uint8), kernel) == 0)


@pytest.fixture(scope="module")
def pair(street):
    return street.view(6), street.view(7)


def test_ground_depth_consistent_between_frames(street, pair):
    """Inverse depth of a plane is linear in the image, so bilinear interpolation of it is exact."""
    view, other = pair
    x, y, z = reproject(view, other, street.K)
    only_ground = cv2.erode(other.ground.astype(np.uint8), np.ones((3, 3))) > 0
    v, u = np.nan_to_num(y, nan=0), np.nan_to_num(x, nan=0)
    j, i = np.floor(v).astype(int).clip(0, 94), np.floor(u).astype(int).clip(0, 318)
    ok = view.ground & inside(x, y, view.inverse.shape) & only_ground[j, i]
    inv = other.inverse.astype(float)
    a, b = u - i, v - j
    there = (1 - b) * ((1 - a) * inv[j, i] + a * inv[j, i + 1]) + b * ((1 - a) * inv[j + 1, i] + a * inv[j + 1, i + 1])
    assert ok.sum() > 3000
    assert np.abs(there * z - 1)[ok].max() < 1e-6


def test_static_pixels_warp_moving_pixels_do_not(street):
    static, unwarped, moving = [], [], []
    for t in (2, 6, 10):
        view, other = street.view(t), street.view(t + 1)
        x, y, z = reproject(view, other, street.K)
        error = np.abs(look_up(other.image, x, y) - view.image).mean(-1)
        seen = visible(view, other, x, y, z)
        static.append(error[seen])
        unwarped.append(np.abs(other.image.astype(float) - view.image).mean(-1)[seen])
        movers = view.moving & inside(x, y, view.inverse.shape)
        moving.append(error[movers])
    static, unwarped, moving = (np.concatenate(e).mean() for e in (static, unwarped, moving))
    assert static < 3
    assert static < unwarped / 5
    assert moving > 5 * static


def test_moving_objects_follow_own_motion(street):
    """With each object's own motion added, moving pixels warp like static ones."""
    errors = []
    for t in (2, 6, 10):
        view, other = street.view(t), street.view(t + 1)
        R0, p0 = street.world.object_poses(t)
        R1, p1 = street.world.object_poses(t + 1)
        for k in np.unique(view.owner[view.moving]):
            if (view.owner == k).sum() < 150:
                continue
            now, then = np.eye(4), np.eye(4)
            now[:3, :3], now[:3, 3], then[:3, :3], then[:3, 3] = R0[k], p0[k], R1[k], p1[k]
            carried = type(view)(**{**vars(view), "T_world_cam": then @ np.linalg.inv(now) @ view.T_world_cam})
            x, y, z = reproject(carried, other, street.K)
            same = cv2.erode((other.owner == k).astype(np.uint8), np.ones((3, 3)))
            ok = (view.owner == k) & inside(x, y, view.inverse.shape) & (look_up(same, x, y) == 1)
            ok &= np.abs(look_up(other.inverse, x, y) * z - 1) < 0.03
            errors.append(np.abs(look_up(other.image, x, y) - view.image).mean(-1)[ok])
    errors = np.concatenate(errors)
    assert len(errors) > 300
    assert errors.mean() < 5


def test_noise_deterministic_and_small(street):
    a = street.renderer.render(3, np.random.default_rng(1)).image.astype(float)
    b = street.renderer.render(3, np.random.default_rng(1)).image
    c = street.renderer.render(3, np.random.default_rng(2)).image
    np.testing.assert_array_equal(a, b)
    assert 0.2 < np.abs(a - c).mean() < 2.5


def test_images_textured_at_training_size(street):
    """Contrast over a few pixels, also after shrinking to 64 x 192, which photometric losses need."""
    grey = cv2.resize(street.view(5).image, (192, 64), interpolation=cv2.INTER_AREA).mean(-1)
    assert grey.std() > 30
    gradient = np.abs(np.diff(grey, axis=1))
    lower = gradient[32:]  # mostly road
    assert np.median(lower) > 1.5
    assert (lower > 1).mean() > 0.55
