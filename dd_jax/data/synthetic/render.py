"""Renders images from ray hits: textures, light, contact shadows, haze, sensor noise.

Shading does not depend on the viewing direction, so a surface point keeps its brightness between frames, as
photometric losses assume.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from dd_jax.data.synthetic import textures
from dd_jax.data.synthetic.ego import CAMERA_HEIGHT
from dd_jax.data.synthetic.primitives import Primitives
from dd_jax.data.synthetic.raycast import GROUND, SKY, Grid, Hits, Placed, cast, pinhole, place
from dd_jax.data.synthetic.shapes import FOOTPRINT
from dd_jax.data.synthetic.world import World

FAR = 250.0  # metres; ground beyond it is sky
_LENS_BLUR = 0.6  # pixels
_SKY_TURNS = 3  # repeats of the cloud texture around the horizon


@dataclasses.dataclass(frozen=True)
class Frame:
    image: UInt8[np.ndarray, "h w 3"]
    inverse: Float32[np.ndarray, "h w"]  # 1 / z-depth in 1 / metres, 0 for the sky
    owner: UInt8[np.ndarray, "h w"]  # object id, 0 for the world


class Renderer:
    """Renders one world with one camera."""

    def __init__(self, world: World, K: np.ndarray, height: int, width: int):
        self.world = world
        self.focal = float(K[0, 0]), float(K[1, 1])
        self.grid = pinhole(K, height, width)
        self.atlas = textures.atlas(world.ground)
        self.owner = np.concatenate([world.patches.owner, world.quadrics.owner, [0, 0]]).astype(np.uint8)  # ..., sky, ground
        direction = np.stack(np.broadcast_arrays(self.grid.p[None], self.grid.q[:, None], 1.0), -1).reshape(-1, 3)
        self.direction = direction.astype(np.float32)
        self.stretch = np.linalg.norm(self.direction, axis=1)  # distance of a point at depth 1
        metres = textures.METRES.copy()
        metres[textures.ID["ground"]] = world.roads.block
        self.detail_ratio = (metres / textures.DETAIL_METRES).astype(np.float32)

    def cast(self, frame: int, grid: Grid, T_world_sensor: np.ndarray) -> tuple[Hits, Placed, Placed]:
        """Ray hits from any sensor; axes right, down, forward."""
        rotation, translation = self.world.object_poses(frame)
        turn = T_world_sensor[:3, :3].T
        rotation, translation = turn @ rotation, (translation - T_world_sensor[:3, 3]) @ turn.T
        patches = place(self.world.patches, rotation, translation)
        quadrics = place(self.world.quadrics, rotation, translation)
        hits = cast(grid, self.world.patches, patches, self.world.quadrics, quadrics, turn[:, 1], -T_world_sensor[1, 3], FAR)
        return hits, patches, quadrics

    def render(self, frame: int, rng: np.random.Generator) -> Frame:
        """The image at ``frame``; ``rng`` draws the sensor noise."""
        T_world_cam = self.world.ego.T_world_cam[frame + 1]
        hits, patches, quadrics = self.cast(frame, self.grid, T_world_cam)
        (h, w), light = self.grid.shape, self.world.light
        shade = _Surface(h * w)
        to_world = T_world_cam[:3, :3].astype(np.float32)
        world_direction = self.direction @ to_world.T
        kind = hits.primitive.reshape(-1)
        inverse = hits.inverse.reshape(-1)
        count = len(self.world.patches)
        sky = np.flatnonzero(kind == SKY)
        self._ground(shade, np.flatnonzero(kind == GROUND), inverse, world_direction, T_world_cam, frame)
        self._patches(shade, np.flatnonzero((kind >= 0) & (kind < count)), hits, patches, self.world.object_poses(frame)[0])
        self._quadrics(shade, np.flatnonzero(kind >= count), hits, quadrics, to_world, count)
        self._sky(shade, sky, world_direction)

        base = self.atlas.sample(shade.material, shade.u, shade.v, shade.wide_u, shade.wide_v)
        ratio = self.detail_ratio[shade.material]
        detail = self.atlas.sample_detail(shade.u * ratio, shade.v * ratio, shade.wide_u * ratio, shade.wide_v * ratio)
        detail = 1 + textures.DETAIL[shade.material] * (detail / np.float32(127.5) - 1)
        clear = np.exp(self.stretch / np.maximum(inverse, np.float32(1e-4)) * np.float32(-1 / light.haze))
        paint = base[:, 3:] / np.float32(255)
        rgb = base[:, :3] * (1 + paint * (shade.tint - 1))
        rgb *= shade.light
        rgb *= (detail * clear)[:, None]
        rgb += (1 - clear)[:, None] * (255 * light.horizon)
        rgb[sky] = self._sky_colour(base[sky, :1] / np.float32(255), world_direction[sky])
        rgb = cv2.GaussianBlur(rgb.reshape(h, w, 3), (5, 5), _LENS_BLUR)
        rgb += rng.standard_normal(rgb.shape, np.float32) * np.float32(light.noise)
        image = np.clip(rgb + np.float32(0.5), 0, 255).astype(np.uint8)
        return Frame(image, hits.inverse, self.owner[hits.primitive])

    def _ground(self, shade, at, inverse, world_direction, T_world_cam, frame) -> None:
        light, block = self.world.light, np.float32(self.world.roads.block)
        eye, turn = T_world_cam[:3, 3].astype(np.float32), T_world_cam[:3, :3].astype(np.float32)
        t = 1 / inverse[at]
        x, z = eye[0] + t * world_direction[at, 0], eye[2] + t * world_direction[at, 2]
        shade.material[at] = textures.ID["ground"]
        shade.u[at], shade.v[at] = x / block, z / block
        for axis, where, wide in ((0, x, shade.wide_u), (2, z, shade.wide_v)):
            # displacement of the ground point per pixel along the row and the column
            along_row, along_col = (
                np.abs(turn[axis, k] + (where - eye[axis]) * (turn[1, k] / eye[1])) * np.float32(1 / self.focal[k])
                for k in (0, 1)
            )
            wide[at] = np.maximum(along_row, along_col) * (t / block)
        shade.light[at] = light.ambient + light.sun * max(0.0, -float(light.to_sun[1]))
        self._contact_shadows(shade, at, x, z, frame, T_world_cam)

    def _contact_shadows(self, shade, at, x, z, frame, T_world_cam) -> None:
        """Soft dark patches under vehicles and people."""
        place = self.world.place[:, frame + 1].astype(np.float32)
        offset = place[:, :2] - T_world_cam[[0, 2], 3]
        ahead, aside = offset @ T_world_cam[[0, 2], 2], offset @ T_world_cam[[0, 2], 0]
        rows = at // self.grid.shape[1]  # ascending
        for k in np.flatnonzero((ahead > -6) & (ahead < 50) & (np.abs(aside) < 8 + ahead)):
            length, width = FOOTPRINT[self.world.kinds[k]]
            # the ground between the object's nearest and farthest end, with a margin for the car's pitch
            low = CAMERA_HEIGHT / max(float(ahead[k]) + length, 0.3) - 0.03
            high = CAMERA_HEIGHT / max(float(ahead[k]) - length, 0.3) + 0.03
            top, bottom = np.searchsorted(self.grid.q, (low, high))
            first, last = np.searchsorted(rows, (top, bottom + 1))
            dx, dz = x[first:last] - place[k, 0], z[first:last] - place[k, 1]
            c, s = np.cos(place[k, 2]), np.sin(place[k, 2])
            along = (s * dx + c * dz) * np.float32(1 / (0.52 * length))
            across = (c * dx - s * dz) * np.float32(1 / (0.56 * width))
            depth = np.minimum(np.float32(1.6) - along**2 * along**2 - across**2 * across**2, 1)
            under = np.flatnonzero(depth > 0)
            shade.light[at[first + under]] *= (1 - np.float32(0.6) * depth[under])[:, None]

    def _patches(self, shade, at, hits: Hits, placed: Placed, rotation) -> None:
        patches, light = self.world.patches, self.world.light
        normal = np.einsum("nij,nj->ni", rotation.astype(np.float32)[patches.owner], patches.axes[:, 2])
        brightness = light.ambient * (np.float32(0.85) - np.float32(0.15) * normal[:, 1:2])
        brightness += light.sun * np.maximum(normal @ light.to_sun, 0)[:, None]
        index = hits.primitive.reshape(-1)[at]
        self._surface(shade, at, index, patches, brightness[index])
        t = 1 / hits.inverse.reshape(-1)[at]
        reach = np.einsum("nj,nj->n", placed.axes[:, 2], placed.center)
        plane = placed.axes[:, 2, :2] / np.where(np.abs(reach) > 1e-6, reach, 1)[:, None]
        uv = patches.uv[index]
        plane_u, plane_v = plane[index].T
        for row, values, coordinate, wide in ((0, hits.s, shade.u, shade.wide_u), (1, hits.q, shade.v, shade.wide_v)):
            axis = placed.axes[:, row]
            dual = axis / np.einsum("nj,nj->n", axis, axis)[:, None]
            offset = -np.einsum("nj,nj->n", dual, placed.center)
            value = values.reshape(-1)[at]
            scale = uv[:, 2 * row]
            coordinate[at] = scale * value + uv[:, 2 * row + 1]
            travel = value - offset[index]
            along_row = np.abs(dual[index, 0] - travel * plane_u) * np.float32(1 / self.focal[0])
            along_col = np.abs(dual[index, 1] - travel * plane_v) * np.float32(1 / self.focal[1])
            wide[at] = np.maximum(along_row, along_col) * (t * scale)

    def _quadrics(self, shade, at, hits: Hits, placed: Placed, to_world, first: int) -> None:
        quadrics, light = self.world.quadrics, self.world.light
        index = hits.primitive.reshape(-1)[at] - first
        squares = np.einsum("nij,nij->ni", placed.axes, placed.axes)
        axes, square = placed.axes[index], squares[index]
        t = 1 / hits.inverse.reshape(-1)[at]
        ray = self.direction[at]
        local = np.einsum("nij,nj->ni", axes, ray * t[:, None] - placed.center[index]) / square
        local[:, 1] *= quadrics.shape[index]
        normal = np.einsum("ni,nij->nj", local / square, axes)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + np.float32(1e-9)
        lambert = np.maximum(normal @ (to_world.T @ light.to_sun), 0)[:, None]
        up = -(normal @ to_world[1])[:, None]
        self._surface(shade, at, index, quadrics, light.ambient * (np.float32(0.8) + np.float32(0.2) * up) + light.sun * lambert)
        uv = quadrics.uv[index]
        shade.u[at] = np.arctan2(local[:, 0], local[:, 2]) * np.float32(0.5 / np.pi) * uv[:, 0] + uv[:, 1]
        shade.v[at] = hits.q.reshape(-1)[at] * uv[:, 2] + uv[:, 3]
        slant = np.maximum(np.abs(np.einsum("ni,ni->n", normal, ray)), np.float32(0.3))
        pixel = t / slant * np.float32(1 / self.focal[0])
        length = np.sqrt(squares)
        shade.wide_u[at] = pixel * uv[:, 0] / (np.float32(2 * np.pi) * length[index, 0])
        shade.wide_v[at] = pixel * uv[:, 2] / length[index, 1]

    def _surface(self, shade, at, index, primitives: Primitives, brightness) -> None:
        shade.material[at] = primitives.material[index]
        shade.tint[at] = primitives.tint[index]
        shade.light[at] = brightness

    def _sky(self, shade, at, world_direction) -> None:
        d = world_direction[at]
        shade.material[at] = textures.ID["sky"]
        shade.u[at] = np.arctan2(d[:, 0], d[:, 2]) * (_SKY_TURNS / (2 * np.pi))
        shade.v[at] = np.arctan2(d[:, 1], np.hypot(d[:, 0], d[:, 2])) * 1.2
        shade.wide_u[at] = shade.wide_v[at] = 0.5 / self.focal[0]

    def _sky_colour(self, cloud: np.ndarray, d: Float32[np.ndarray, "n 3"]) -> np.ndarray:
        light = self.world.light
        height = np.clip(d[:, 1:2] / np.linalg.norm(d, axis=1, keepdims=True) * np.float32(-2.2), 0, 1)
        colour = light.horizon * (1 - height) + light.zenith * height
        colour = colour + light.clouds * (np.float32(0.3) + height) * (cloud - np.float32(0.5))
        return 255 * colour


class _Surface:
    """Inputs of the texture lookup per pixel."""

    def __init__(self, n: int):
        self.material = np.zeros(n, np.int32)
        self.u, self.v = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self.wide_u, self.wide_v = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self.tint = np.ones((n, 3), np.float32)
        self.light = np.ones((n, 3), np.float32)
